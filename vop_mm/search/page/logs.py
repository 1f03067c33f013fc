"""Server log: single lines, and few of them, whatever clients send."""
import logging
import os
import time

from vop_mm.utils.cli import one_line

_LOGGERS = ('uvicorn', 'asyncio', __package__)
_MAX_PER_MINUTE = 20
_MAX_LINE = 1000  # maximum line length in characters, as names in requests may be long


class FewLines(logging.Filter):
    """Logging filter that reduces each record to one line without traceback, and limits the lines per minute."""

    def __init__(self, per_minute: int = _MAX_PER_MINUTE) -> None:
        super().__init__()
        self._per_minute, self._begin = per_minute, float('-inf')
        self._passed = self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True if a record is printed; the record is modified."""
        now = time.monotonic()
        if now - self._begin >= 60:
            self._begin, self._passed = now, 0
        if self._passed >= self._per_minute:
            self._dropped += 1
            return False
        self._passed += 1
        text = ' '.join(record.getMessage().split())
        if record.exc_info and record.exc_info[1] is not None and not os.environ.get('VOP_MM_TRACEBACK'):
            text = f'{text}: {one_line(record.exc_info[1])}'
            record.exc_info = record.exc_text = record.stack_info = None
        if len(text) > _MAX_LINE:
            text = f'{text[:_MAX_LINE]} ...'
        if self._dropped:
            text, self._dropped = f'{text} ({self._dropped:,} earlier lines were omitted)', 0
        record.msg, record.args = ''.join(c if c.isprintable() else '?' for c in text), ()
        return True


def log_few_lines() -> None:
    """Make the server's libraries and this package log to stderr through :class:`FewLines`."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter('%(levelname)s: %(message)s'))
    handler.addFilter(FewLines())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)
