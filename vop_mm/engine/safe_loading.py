"""Safe reading of checkpoints within a run, regardless of the loader that MMEngine would use.

MMEngine has a loader for each kind of name (paths, URLs, storages, hubs), most of which unpickle any file, and executes
the config in a checkpoint. Within a run, all of them are replaced; outside of it, other libraries in the process keep
theirs.
"""
import os
import re
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from mmengine.hooks import CheckpointHook
from mmengine.runner.checkpoint import CheckpointLoader

from vop_mm.utils.paths import open_below

from .checkpoint import CheckpointError, load_from_local_safely, read_checkpoint

_MAX_DOWNLOAD = 32 << 30  # bytes
_STALLED = 30  # seconds without data
_MAX_NAME = 4096
_lock, _runs, _replaced = threading.Lock(), 0, None


@contextmanager
def safe_loading() -> Iterator[None]:
    """Make MMEngine read all checkpoints through :func:`load_from_anywhere` in this context."""
    global _runs, _replaced
    with _lock:
        if not _runs:
            _replaced = _replace_loaders({'': load_from_anywhere})
        _runs += 1
    try:
        yield
    finally:
        with _lock:
            _runs -= 1
            if not _runs:
                _replace_loaders(_replaced)


def _replace_loaders(loaders: dict) -> dict:
    replaced, CheckpointLoader._schemes = CheckpointLoader._schemes, loaders
    return replaced


def load_from_anywhere(filename: str, map_location=None) -> dict:
    """Read a checkpoint for MMEngine without executing any of its content.

    Args:
        filename (str): A path, or the URL of a file (``http://``, ``https://``), which is downloaded first.
        map_location: As in ``torch.load``. Defaults to None.

    Returns:
        dict: The checkpoint, without the entries that MMEngine would execute.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointError: The file is not a checkpoint, is not safe to read, or has an unsupported kind of URL.
    """
    filename = str(filename)
    if re.match('https?://', filename):
        with tempfile.TemporaryFile() as file:  # has no name: nothing is left of it, however this ends
            _download(filename, file)
            checkpoint = read_checkpoint(file, re.split('[?#]', filename)[0], map_location)
    elif re.match(r'[\w.:+-]+://', filename):
        raise CheckpointError(f'{filename} is refused: only files and http(s) URLs are supported; download it first')
    else:
        checkpoint = load_from_local_safely(filename, map_location)
    checkpoint['meta'].pop('config', None)  # MMEngine executes it as Python when resuming
    return checkpoint


def last_checkpoint(work_dir: str | Path, folder: str | Path) -> str | None:
    """Return the checkpoint to resume from, if there is one.

    Args:
        work_dir (str | Path): Folder with the file ``last_checkpoint``, whose content is not trusted.
        folder (str | Path): Folder of the run's checkpoints.

    Returns:
        str | None: File in ``folder`` with the name given in ``last_checkpoint``. The rest of the path in that file is
        ignored: it may come from another machine or have changed since.

    Raises:
        CheckpointError: ``last_checkpoint`` names no file in ``folder``.
    """
    noted = Path(work_dir) / 'last_checkpoint'
    if not os.path.lexists(noted):
        return None
    with open_below(work_dir, noted.name, follow_links=True) as file:
        text = file.read(_MAX_NAME).decode(errors='replace').strip()
    name = text.replace('\\', '/').rpartition('/')[2]
    try:
        open_below(folder, name).close()
    except (OSError, ValueError):
        raise CheckpointError(f'{noted} is refused: it names {text!r:.200}, which is not a file in {folder}; '
                              'give the checkpoint: --resume FILE') from None
    return os.path.join(folder, name)


class SafeLoading:
    """Mixin for runners that read everything through :func:`load_from_anywhere`.

    Args:
        load_from (str, optional): Checkpoint to start from. Defaults to None.
        resume (bool | str): Resume from ``load_from``, or from the named checkpoint. ``'auto'``: from the last
            checkpoint in the work directory; if there is none yet, start from ``load_from``. Defaults to False.
        **kwargs: Arguments of MMEngine's runner.

    Attributes:
        loaded (str | None): Checkpoint that is being loaded or was loaded last.
        resuming (bool): Training will continue from the checkpoint that is being loaded.
        resumed (bool): Training continues from a checkpoint.
    """

    loaded: str | None = None
    resuming = resumed = False

    def __init__(self, *args, load_from: str | None = None, resume: bool | str = False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._start = load_from, resume

    def train(self, *args, **kwargs):
        with safe_loading():
            return super().train(*args, **kwargs)

    def val(self, *args, **kwargs):
        with safe_loading():
            return super().val(*args, **kwargs)

    def test(self, *args, **kwargs):
        with safe_loading():
            return super().test(*args, **kwargs)

    def load_checkpoint(self, filename: str, *args, **kwargs):
        self.loaded = filename
        with safe_loading():
            return super().load_checkpoint(filename, *args, **kwargs)

    def resume(self, filename: str, *args, **kwargs):
        self.loaded, self.resuming = filename, True
        try:
            with safe_loading():
                super().resume(filename, *args, **kwargs)
        finally:
            self.resuming = False
        self.resumed = True

    def load_or_resume(self) -> None:
        """Load or resume according to the config, unless a checkpoint was loaded already."""
        if self.loaded is not None:
            return
        load_from, resume = self._start
        if resume == 'auto' or (resume is True and load_from is None):
            resume = last_checkpoint(self.work_dir, checkpoint_folder(self))
            self.logger.info(f'Resuming from the last checkpoint {resume}' if resume else
                             f'No checkpoint to resume from in {self.work_dir}')
        elif resume:
            resume = resume if isinstance(resume, str) else load_from
        if resume:
            self.resume(resume)
        elif load_from is not None:
            self.load_checkpoint(load_from)


def checkpoint_folder(runner) -> str:
    """Return the folder of a run's checkpoints, before and after training has begun."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.out_dir not in (None, runner.work_dir):
            folder = os.path.join(hook.out_dir, os.path.basename(runner.work_dir.rstrip('/')))  # as MMEngine does
            return hook.out_dir if hasattr(hook, 'file_backend') else folder
    return runner.work_dir


def _download(url: str, file: BinaryIO) -> None:
    # only the handlers of http and https, so that no redirect leads to files or other protocols
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
                    urllib.request.HTTPRedirectHandler, urllib.request.HTTPDefaultErrorHandler,
                    urllib.request.HTTPErrorProcessor, urllib.request.UnknownHandler):
        opener.add_handler(handler())
    try:
        with opener.open(url, timeout=_STALLED) as answer:
            if url.startswith('https:') and not answer.geturl().startswith('https:'):
                raise CheckpointError(f'{url} is refused: it redirects to {answer.geturl()}, which is not encrypted')
            while chunk := answer.read(1 << 20):
                file.write(chunk)
                if file.tell() > _MAX_DOWNLOAD:
                    raise CheckpointError(f'{url} is refused: it is larger than any checkpoint')
            if answer.length:
                raise HTTPException(f'{answer.length} bytes are missing')
    except (OSError, HTTPException) as e:
        reason = getattr(e, 'reason', None) or e
        raise ConnectionError(f'the checkpoint {url} cannot be downloaded: {reason}') from None
    file.flush()
