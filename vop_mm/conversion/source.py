"""Reading of original annotation files. Errors are reported in one line that names the file."""
import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path

from vop_mm.utils.json_text import decode_text, parse_json


class ConversionError(ValueError):
    """Error for invalid files of a dataset."""


class Source:
    """Folder with a dataset's original files, in UTF-8 with or without byte order mark, with any line ending.

    Args:
        folder (str | Path): Path of the folder.

    Attributes:
        files_read (set[Path]): Files read so far.

    Raises:
        FileNotFoundError: The folder does not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.files_read: set[Path] = set()
        if not self.folder.is_dir():
            raise FileNotFoundError(f'no such folder: {self.folder}')

    def find(self, *names: str) -> str | None:
        """Return the first of several names that exists in the folder.

        Args:
            *names (str): File names; all but the first may contain wildcards, which must match a single file.

        Returns:
            str | None: The name, or None if there is no such file.

        Raises:
            ConversionError: Several files match.
        """
        for name in names:
            found = sorted(path.name for path in self.folder.glob(name))
            if len(found) > 1:
                raise ConversionError(f'{self.folder} holds {", ".join(found)}: keep only the right one')
            if found:
                return found[0]
        return None

    def require(self, *names: str) -> str:
        """Return the same as :meth:`find`, but raise an error if there is no such file.

        Args:
            *names (str): File names, as in :meth:`find`.

        Returns:
            str: The name.

        Raises:
            ConversionError: No file or several files match.
        """
        name = self.find(*names)
        if name is None:
            raise ConversionError(f'{self.folder} lacks {" or ".join(names)}')
        return name

    def path(self, name: str) -> Path:
        """Return the path of a file, for messages."""
        return self.folder / name

    def text(self, name: str) -> str:
        """Read a whole file.

        Args:
            name (str): File name.

        Returns:
            str: Content of the file.

        Raises:
            ConversionError: The file does not exist, is not UTF-8, or is compressed.
            OSError: The file can't be read.
        """
        path = self.path(self.require(name))
        self.files_read.add(path.resolve())
        try:
            return decode_text(path.read_bytes())
        except ValueError as e:
            raise ConversionError(f'{path}: {e}') from None

    def json(self, name: str, kind: type):
        """Read a JSON file.

        Args:
            name (str): File name.
            kind (type): Expected type of the top-level value, ``dict`` or ``list``.

        Returns:
            dict | list: The top-level value.

        Raises:
            ConversionError: The file is not JSON, has a duplicate key in an object, another type at the top level, or
                is empty.
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
        """Return the lines with their numbers, from 1; blank lines are skipped, whitespace in the others is kept."""
        # not splitlines(): it also splits at a vertical tab or a line separator inside a sentence
        lines = enumerate(self.text(name).replace('\r\n', '\n').replace('\r', '\n').split('\n'), 1)
        return [(number, line) for number, line in lines if line.strip()]

    def ids(self, name: str) -> list[str]:
        """Read a list file with one id per line.

        Args:
            name (str): File name.

        Returns:
            list[str]: The ids.

        Raises:
            ConversionError: A duplicate id, or no ids.
        """
        return _unique_ids(self.path(name), ((number, line.strip()) for number, line in self.lines(name)))

    def csv(self, name: str, *columns: str) -> list[dict[str, str]]:
        """Read a comma-separated file with a header.

        Args:
            name (str): File name.
            *columns (str): Required columns; the first one holds an id.

        Returns:
            list[dict[str, str]]: One dict per row, with surrounding whitespace removed from values.

        Raises:
            ConversionError: A column is missing, a row has more or fewer columns than the header, or an id is
                duplicate.
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
        """Read a tab-separated file without header or quoting.

        Args:
            name (str): File name.
            num_columns (int): Number of columns of each line.

        Returns:
            list[list[str]]: Cells, with surrounding whitespace removed.

        Raises:
            ConversionError: A line with more or fewer columns, or no lines.
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
    """Return a value of a JSON object after checking its type.

    Args:
        where (str): File and position, for the message.
        record: The value that should be an object.
        name (str): Key.
        kind (type): Expected type: ``str``, ``list`` or ``dict``.

    Returns:
        The value; surrounding whitespace is removed from a string.

    Raises:
        ConversionError: ``record`` is not an object, the key is missing, or the value has another type or is empty.
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
    """Select the captions of listed videos.

    Args:
        video_ids (Iterable[str]): Ids in the list.
        captions (dict[str, list]): Captions of all videos, by id.
        where (str): File with the captions, for the message.
        list_name (str): File with the list, for the message.

    Returns:
        dict[str, list]: Captions in the order of the list.

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
    """Join sentences to one caption, in the given order, with single spaces.

    Args:
        where (str): File and video, for the message.
        sentences (Iterable[str]): Sentences; extra whitespace is removed.

    Returns:
        str: The caption.

    Raises:
        ConversionError: A sentence is not a string, or all are blank.
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
            raise ConversionError(f'{path}: duplicate id {video_id}, in lines {seen[video_id]} and {number}')
        seen[video_id] = number
    if not seen:
        raise ConversionError(f'{path}: the file is empty')
    return list(seen)


def _shown(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + '...'
