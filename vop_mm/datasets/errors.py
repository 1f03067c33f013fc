"""What can be wrong with a data set. Each message is one line that names the file and says what is wrong."""
import re

from vop_mm.utils.cli import printable


def _own_line(kind: type, text: str) -> str:
    """The message of an error that a DataLoader worker raised.

    In the main process torch builds the exception anew, from the text of the worker's traceback. This takes the one
    line out of it that a user can act on.
    """
    marker = f'{kind.__module__}.{kind.__qualname__}: '
    for line in reversed(text.splitlines()):
        if line.startswith(marker):
            return line[len(marker):]
    return text


class AnnotationError(ValueError):
    """An annotation file that is missing, can't be read, or does not say what it should.

    Args:
        path (str): The annotation file.
        reason (str): What is wrong. None: ``path`` is the whole message.
    """

    def __init__(self, path: str, reason: str | None = None) -> None:
        super().__init__(_own_line(type(self), path) if reason is None else f'{path}: {reason}')


class FrameStoreError(ValueError):
    """A store of decoded frames that is missing, unfinished, or not what the pipeline asks for.

    Args:
        path (str): The store.
        reason (str): What is wrong. None: ``path`` is the whole message.
    """

    def __init__(self, path: str, reason: str | None = None) -> None:
        super().__init__(_own_line(type(self), path) if reason is None else f'{path}: {reason}')


class DamagedStoreError(FrameStoreError):
    """A store of decoded frames that is cut off, or in which something was changed since it was made."""


class VideoNotFoundError(FileNotFoundError):
    """Videos that an annotation names are not there."""


class VideoDecodeError(RuntimeError):
    """A video can't be decoded.

    Args:
        path (str): The video.
        reason (str): Why. None: ``path`` is the message of such an error (from another process), or has it in it.

    Attributes:
        path (str): The video.
        reason (str): Why.
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
    """More videos can't be decoded than a training run is meant to put up with."""

    def __init__(self, message: str) -> None:
        super().__init__(_own_line(type(self), message))
