"""Read and write JSON and other text files from any source, with helpful error messages."""
import json
import re

_SURROGATE = re.compile('[\ud800-\udfff]')  # half of an emoji, or a byte of a file name, which UTF-8 can't encode


def decode_text(data: bytes) -> str:
    """Decode the content of a UTF-8 text file, with or without byte order mark.

    Args:
        data (bytes): Content of the file.

    Returns:
        str: The text.

    Raises:
        ValueError: The content is compressed, or not UTF-8.
    """
    if data.startswith(b'\x1f\x8b'):
        raise ValueError('compressed with gzip; unpack it first (gunzip)')
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as e:
        line = data.count(b'\n', 0, e.start) + 1
        raise ValueError(f'line {line} is not UTF-8 (byte 0x{data[e.start]:02x}); convert the file, for instance with '
                         'iconv') from None


def parse_json(text: str):
    """Parse JSON.

    Args:
        text (str): Text with one JSON value.

    Returns:
        The value.

    Raises:
        ValueError: The text is not JSON, contains several values, is nested too deeply, or has duplicate keys.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError as e:
        raise ValueError(str(e)) from None
    except json.JSONDecodeError as e:
        if e.msg == 'Extra data' and e.colno == 1:
            raise ValueError(f"line {e.lineno} begins a second value: JSON Lines are not read; 'jq -s .' makes a list, "
                             "'jq -s {data_list:.}' an annotation of entries") from None
        raise


def dump_json(content) -> str:
    """Serialize to JSON that UTF-8 can encode, without escaping letters.

    Args:
        content: The value.

    Returns:
        str: JSON text, one item per line.
    """
    text = json.dumps(content, ensure_ascii=False, indent=1)
    return _SURROGATE.sub(lambda found: json.dumps(found[0])[1:-1], text)


def _unique(pairs: list[tuple]) -> dict:
    # json keeps the last of several equal keys, so captions would silently disappear
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f'duplicate key {twice!r:.80}')
    return result
