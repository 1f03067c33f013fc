"""The server's log."""
import logging
import sys

from vop_mm.search.page.logs import FewLines


def test_few_lines_are_logged_and_none_of_them_is_a_traceback():
    few = FewLines(per_minute=3)
    try:
        raise TypeError('a\nb')
    except TypeError:
        failed = logging.LogRecord('a', logging.ERROR, '', 0, 'it\n failed %s', ('here', ), sys.exc_info())
    assert few.filter(failed) and logging.Formatter().format(failed) == 'it failed here: TypeError: a b'
    records = [logging.LogRecord('a', logging.ERROR, '', 0, 'x\x1b[2J', (), None) for _ in range(10)]
    assert [few.filter(record) for record in records] == [True] * 2 + [False] * 8
    assert records[0].getMessage() == 'x?[2J'
    few._begin -= 61  # a minute later
    assert few.filter(records[-1]) and records[-1].getMessage() == 'x?[2J (8 earlier lines were omitted)'
    long = logging.LogRecord('a', logging.ERROR, '', 0, 'x' * 100_000, (), None)
    assert few.filter(long) and len(long.getMessage()) < 1100
