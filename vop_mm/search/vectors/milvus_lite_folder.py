"""Check a Milvus Lite folder before opening it.

Milvus Lite follows links, removes files that its lists lack, and passes indexes to FAISS's reader.
"""
import json
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

_MAX_LIST = 50_000_000  # maximum bytes of a list of files
_PARTITION = r'collections/\w+/partitions/_default'
_FOLDERS = re.compile(r'databases|\.database-staging|collections|collections/\w+|collections/\w+/(wal|partitions)|'
                      rf'{_PARTITION}|{_PARTITION}/(data|delta|indexes)', re.ASCII)
# only plain vectors, which numpy reads; other index files are read by FAISS
_FILES = re.compile(r'LOCK|collections/\w+/(schema|manifest)\.json(\.prev|\.tmp)?|'
                    r'collections/\w+/wal/[\w.-]+\.arrow|'
                    rf'{_PARTITION}/(data|delta)/\w+\.parquet|{_PARTITION}/indexes/\w+\.vector\.flat\.idx', re.ASCII)
_LISTED = re.compile(r'(data|delta)/\w+\.parquet', re.ASCII)


def check_lite_folder(folder: str | Path) -> None:
    """Reject a Milvus Lite folder that contains links, or files or settings that this project does not write."""
    if not os.path.lexists(folder):
        return
    if not stat.S_ISDIR(os.lstat(folder).st_mode):
        raise _refused(folder, 'not a folder')
    waiting = ['']
    while waiting:
        with os.scandir(os.path.join(folder, waiting.pop())) as entries:
            for entry in entries:
                name = os.path.relpath(entry.path, folder)
                if entry.is_dir(follow_symlinks=False) and _FOLDERS.fullmatch(name):
                    waiting.append(name)
                elif not (entry.is_file(follow_symlinks=False) and _FILES.fullmatch(name)):
                    raise _refused(folder, f'unexpected file {name!r:.200}')
                elif entry.name.startswith('manifest.json'):
                    with suppress(FileNotFoundError):  # another process has the folder open
                        _check_manifest(folder, name)


def _check_manifest(folder: str | Path, name: str) -> None:
    with open(os.path.join(folder, name), 'rb') as file:
        text = file.read(_MAX_LIST)
    try:
        content = json.loads(text)
        specs = content.get('index_specs') or {}
        fine = (set(content['partitions']) <= {'_default'}
                and all(_LISTED.fullmatch(path) for files in content['partitions'].values()
                        for kind in ('data_files', 'delta_files') for path in files.get(kind, ()))
                and all(spec['index_type'] == 'FLAT' for spec in specs.values()))
    except (ValueError, RecursionError):
        return  # truncated by a kill; Milvus Lite uses the previous one
    except (KeyError, TypeError, AttributeError):
        fine = False
    if not fine:
        raise _refused(folder, f'{name!r} names other files or indexes')


def _refused(folder: str | Path, why: str) -> ValueError:
    return ValueError(f'{folder} was not written by this project ({why}): remove it and index again, clips in the '
                      'catalog are not encoded again')
