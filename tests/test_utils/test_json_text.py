"""JSON of others, read and written."""
import json
import os

import pytest

from vop_mm.utils.json_text import decode_text, dump_json, parse_json


@pytest.mark.parametrize('value', [
    {'half of \ud83d an emoji': ['\ude00', 'caf\u00e9 \u732b \U0001f600', None, 1.5]}, [os.fsdecode(b'\xc4\xe3.mp4')],
    '\\ud83d is no emoji', '"\n\x1b\0'])
def test_any_text_is_written_as_utf_8_and_read_as_it_was(value):
    text = dump_json(value)
    assert parse_json(decode_text(text.encode())) == value == json.loads(text)


def test_letters_stay_as_they_are():
    assert '猫 café' in dump_json(['猫 café \ud83d'])


def test_a_mark_at_the_beginning_is_no_text():
    assert parse_json(decode_text(b'\xef\xbb\xbf[1]')) == [1]
