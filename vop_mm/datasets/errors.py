"""Errors of datasets. Each message is one line that names the file and says what is wrong."""
import re

from vop_mm.utils.cli import printable


def _own_line(kind: type, text: str) -> str:
    """Return the message of an error that a DataLoader worker raised.

    In the main process, torch rebuilds the exception from the text of the worker's traceback. This extracts the one
    line that a user can act on.
    """
    marker = f'{kind.__module__}.{kind.__qualname__}: '
    for line in reversed(text.splitlines()):
        if line.startswith(marker):
            return line[len(marker):]
    return text


class AnnotationError(ValueError):
    """An annotation file is missing, unreadable or invalid.

    Args:
        path (str): Annotation file.
        reason (str): What is wrong. None: ``path`` is the whole message.
    """

    def __init__(self, path: str, reason: str | None = None) -> None:
        super().__init__(_own_line(type(self), path) if reason is None else f'{path}: {reason}')


class FrameStoreError(ValueError):
    """A frame store is missing, unfinished, or does not match the pipeline.

    Args:
        path (str): Folder of the store.
        reason (str): What is wrong. None: ``path`` is the whole message.
    """

    def __init__(self, path: str, reason: str | None = None) -> None:
        super().__init__(_own_line(type(self), path) if reason is None else f'{path}: {reason}')


class DamagedStoreError(FrameStoreError):
    """A frame store is cut off, or its content was changed after it was made."""


class VideoNotFoundError(FileNotFoundError):
    """Videos named by an annotation are missing."""


class VideoDecodeError(RuntimeError):
    """A video can't be decoded.

    Args:
        path (str): The video.
        reason (str): Why it can't be decoded. None: ``path`` is, or contains, the message of such an error raised in
            another process.

    Attributes:
        path (str): The video.
        reason (str): Why it can't be decoded.
    """

    def __init__(self, path: str, reason: str | None = None) -> None:
        if reason is None:
            message = _own_line(type(self), path)
            found = re.fullmatch(r"can't decode (.*?): (.*)", message)
            self.path, self.reason = found.groups() if found else ('', message)
        else:
            self.path, self.reason = path, ' '.join(reason.split())
            message = f"can't decode {printable(self.path)}: {self.reason}"
        super().__init__(message)


class TooManyUnreadableVideosError(RuntimeError):
    """More videos can't be decoded than a training run tolerates."""

    def __init__(self, message: str) -> None:
        super().__init__(_own_line(type(self), message))
