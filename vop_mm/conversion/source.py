"""Reading annotation files as data sets distribute them. What is wrong with one becomes one line that names it."""
import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path

from vop_mm.utils.json_text import decode_text, parse_json


class ConversionError(ValueError):
    """A data set's files are not what they should be."""


class Source:
    """The folder with a data set's files. UTF-8 with or without byte order mark, any line ends.

    Args:
        folder (str | Path): Where the files are.

    Attributes:
        files_read (set[Path]): What was read so far.

    Raises:
        FileNotFoundError: There is no such folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.files_read: set[Path] = set()
        if not self.folder.is_dir():
            raise FileNotFoundError(f'no such folder: {self.folder}')

    def find(self, *names: str) -> str | None:
        """The first of several names under which a file is there.

        Args:
            *names (str): File names; a later one may hold wildcards, and then has to fit one file only.

        Returns:
            str | None: The name, None where there is no such file.

        Raises:
            ConversionError: Several files fit.
        """
        for name in names:
            found = sorted(path.name for path in self.folder.glob(name))
            if len(found) > 1:
                raise ConversionError(f'{self.folder} holds {", ".join(found)}: leave the one that is meant')
            if found:
                return found[0]
        return None

    def require(self, *names: str) -> str:
        """As :meth:`find`, but the file must be there.

        Raises:
            ConversionError: Several files fit, or none does.
        """
        name = self.find(*names)
        if name is None:
            raise ConversionError(f'{self.folder} lacks {" or ".join(names)}')
        return name

    def path(self, name: str) -> Path:
        """The path of a file, for messages."""
        return self.folder / name

    def text(self, name: str) -> str:
        """A whole file.

        Raises:
            ConversionError: It isn't there, not UTF-8, or compressed.
            OSError: It can't be read.
        """
        path = self.path(self.require(name))
        self.files_read.add(path.resolve())
        try:
            return decode_text(path.read_bytes())
        except ValueError as e:
            raise ConversionError(f'{path}: {e}') from None

    def json(self, name: str, kind: type):
        """A JSON file.

        Args:
            name (str): The file.
            kind (type): ``dict`` or ``list``, what has to stand at the top.

        Raises:
            ConversionError: Not JSON, a key twice in one object, something else at the top, or empty.
        """
        path = self.path(name)
        text = self.text(name)
        try:
            content = parse_json(text)
        except ValueError as e:
            raise ConversionError(f'{path}: not a JSON file ({" ".join(str(e).split())})') from None
        if not isinstance(content, kind) or not content:
            raise ConversionError(f'{path}: expected {_KINDS[kind]} that is not empty at the top, '
                                  f'found {_shown(content)}')
        return content

    def lines(self, name: str) -> list[tuple[int, str]]:
        """Lines with their numbers, from 1; blank ones are left out, the ends of the others kept."""
        # not splitlines(): it also splits where a sentence has a vertical tab or a line separator
        lines = enumerate(self.text(name).replace('\r\n', '\n').replace('\r', '\n').split('\n'), 1)
        return [(number, line) for number, line in lines if line.strip()]

    def ids(self, name: str) -> list[str]:
        """A list file: one id a line.

        Raises:
            ConversionError: An id twice, or none at all.
        """
        return _unique_ids(self.path(name), ((number, line.strip()) for number, line in self.lines(name)))

    def csv(self, name: str, *columns: str) -> list[dict[str, str]]:
        """A comma-separated file with a header.

        Args:
            name (str): The file.
            *columns (str): Columns it must have; the first one holds an id.

        Returns:
            list[dict[str, str]]: One dict per row, values without blanks around them.

        Raises:
            ConversionError: A column is missing, a row has more or fewer columns than the header, an id twice.
        """
        path = self.path(name)
        reader = csv.reader(io.StringIO(self.text(name), newline=''), strict=True)
        try:
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
        except csv.Error as e:
            raise ConversionError(f'{path}, line {reader.line_num}: {e}') from None
        header = rows[0][1] if rows else []
        for column in columns:
            if column not in header:
                raise ConversionError(f'{path}: no column {column!r} in the first line, found {", ".join(header)!r}')
        for number, row in rows:
            if len(row) != len(header):
                raise ConversionError(f'{path}, line {number}: {len(row)} columns, the first line has {len(header)}')
        records = [dict(zip(header, row, strict=True)) for _, row in rows[1:]]
        _unique_ids(path, ((number, record[columns[0]]) for (number, _), record in zip(rows[1:], records, strict=True)))
        return records

    def tsv(self, name: str, num_columns: int) -> list[list[str]]:
        """A tab-separated file without header or quoting.

        Args:
            name (str): The file.
            num_columns (int): Of each line.

        Returns:
            list[list[str]]: Cells without blanks around them.

        Raises:
            ConversionError: A line with more or fewer columns, or no lines at all.
        """
        rows = [(number, [cell.strip() for cell in line.split('\t')]) for number, line in self.lines(name)]
        for number, row in rows:
            if len(row) != num_columns or not row[0]:
                raise ConversionError(f'{self.path(name)}, line {number}: expected {num_columns} columns separated by '
                                      f'tabs, the first not empty, found {len(row)}')
        if not rows:
            raise ConversionError(f'{self.path(name)}: the file is empty')
        return [row for _, row in rows]


_KINDS = {dict: 'an object', list: 'a list', str: 'a text'}


def field(where: str, record, name: str, kind: type):
    """One value of a JSON object.

    Args:
        where (str): File and position, for the message.
        record: What should be the object.
        name (str): Key.
        kind (type): ``str``, ``list`` or ``dict``.

    Returns:
        The value; a text without blanks around it.

    Raises:
        ConversionError: No object, no such key, another kind of value, or an empty one.
    """
    if not isinstance(record, dict):
        raise ConversionError(f'{where}: expected an object with {name}, found {_shown(record)}')
    value = record.get(name)
    if isinstance(value, str):
        value = value.strip()
    if not isinstance(value, kind) or not value:
        found = _shown(value) if name in record else 'none'
        raise ConversionError(f'{where}: {name} must be {_KINDS[kind]} that is not empty, found {found}')
    return value


def captions_of(video_ids: Iterable[str], captions: dict[str, list], where: str, list_name: str) -> dict[str, list]:
    """The captions of listed videos.

    Args:
        video_ids (Iterable[str]): What the list holds.
        captions (dict[str, list]): By video, of all there are.
        where (str): File with the captions, for the message.
        list_name (str): File with the list, for the message.

    Returns:
        dict[str, list]: In the order of the list.

    Raises:
        ConversionError: A listed video has no captions.
    """
    video_ids = list(video_ids)
    lacking = [video_id for video_id in video_ids if video_id not in captions]
    if lacking:
        raise ConversionError(f'{where} has no captions of {len(lacking)} videos that {list_name} names: '
                              f'{", ".join(lacking[:3])}')
    return {video_id: field(where, captions, video_id, list) for video_id in video_ids}


def paragraph(where: str, sentences: Iterable[str]) -> str:
    """Sentences as one caption, in the order given, joined by single blanks.

    Args:
        where (str): File and video, for the message.
        sentences (Iterable[str]): Blanks around and inside them don't matter.

    Raises:
        ConversionError: One isn't a text, or all are blank.
    """
    sentences = list(sentences)
    for sentence in sentences:
        if not isinstance(sentence, str):
            raise ConversionError(f'{where}: a sentence must be a text, found {_shown(sentence)}')
    text = ' '.join(' '.join(sentences).split())
    if not text:
        raise ConversionError(f'{where}: no sentences')
    return text


def _unique_ids(path: Path, ids: Iterable[tuple[int, str]]) -> list[str]:
    seen: dict[str, int] = {}
    for number, video_id in ids:
        if not video_id:
            raise ConversionError(f'{path}, line {number}: the id is empty')
        if video_id in seen:
            raise ConversionError(f'{path}: {video_id} stands there twice, in lines {seen[video_id]} and {number}')
        seen[video_id] = number
    if not seen:
        raise ConversionError(f'{path}: the file is empty')
    return list(seen)


def _shown(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + '...'
