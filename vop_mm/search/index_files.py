"""Create the files of a search index."""
import os
import shutil
import uuid
from contextlib import closing, suppress
from pathlib import Path

from vop_mm.registry import INDEXES
from vop_mm.utils.files import remove_leftovers, temporary_folder
from vop_mm.utils.locks import locked
from vop_mm.utils.shared_config import build_part

from .catalogue import Catalogue
from .place import place_of_videos

CATALOGUE = 'catalogue.db'  # in the folder of an index
LOCK, _MILVUS = 'lock', 'milvus.db'


def create_index_files(folder: Path, videos: str | Path, settings: dict, backend: dict | None,
                       source: dict | None) -> None:
    """Create the files of an empty index; see :meth:`SearchIndex.create`. On failure, nothing is left behind."""
    if backend is not None:
        backend = dict(type='FaissIndex') | backend
        if backend['type'].endswith('MilvusIndex'):  # several indexes may share a cluster
            backend.setdefault('collection', f'vop_mm_{uuid.uuid4().hex[:12]}')
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
        made = True
    except FileExistsError:
        made = False
        _check_free(folder)
    try:
        with locked(folder / LOCK, busy(folder)):
            if not (folder / CATALOGUE).is_file():  # otherwise another process was faster
                try:
                    _write(folder, dict(settings=settings, videos=place_of_videos(videos), backend=backend,
                                        source=source))
                except BaseException:
                    if made:
                        shutil.rmtree(folder, ignore_errors=True)
                    raise
    except OSError:
        if made:
            with suppress(OSError):  # fails if another process creates its index there
                folder.rmdir()
        raise


def busy(folder: Path) -> str:
    """Return the message for an index that another process has locked."""
    return f'another process is changing the index {folder}'


def _check_free(folder: Path) -> None:
    """Refuse a folder that holds something other than an index or the remains of creating one."""
    if folder.is_dir():
        remove_leftovers(folder)
        names = [path.name for path in folder.iterdir()]
        # milvus.db may hold other collections; temporary files belong to a process that is creating an index now
        if CATALOGUE in names or all(name in (LOCK, _MILVUS) or name.startswith('.vop_mm.') for name in names):
            return
    raise FileExistsError(f'{folder} exists and is not a search index: choose another folder')


def _write(folder: Path, contents: dict) -> None:
    with temporary_folder(folder, 'index') as temporary:
        with closing(Catalogue(temporary / CATALOGUE, create=True)) as catalogue, catalogue.transaction():
            for key, value in contents.items():
                catalogue.set(key, value)
        # before the catalog gets its final name: if Milvus can't be reached, there is no index
        if contents['backend']:
            build_part(contents['backend'], 'backend', INDEXES, folder=str(folder),
                       dim=contents['settings']['dim']).close()
        os.replace(temporary / CATALOGUE, folder / CATALOGUE)
