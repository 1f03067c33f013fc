"""Files of repositories of the Hugging Face hub."""
from collections.abc import Sequence

_TIMEOUT = 5.  # seconds; the hub's clients try again for a minute, and say so, without a network


def hub_folder(repository: str, files: Sequence[str], what: str, needed: str, setting: str) -> str:
    """Return the local folder of a repository's files, after a download if there is a network.

    Args:
        repository (str): Name of the repository.
        files (Sequence[str]): Patterns of the names of its files.
        what (str): Name of what the files are, for the message.
        needed (str): Files to fetch elsewhere, for the message.
        setting (str): Option that names a local folder, for the message.

    Returns:
        str: A folder in the hub's cache.

    Raises:
        ConnectionError: The files are neither in the cache nor to be had from the hub.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import RepositoryNotFoundError

    files = list(files)
    try:
        HfApi().model_info(repository, timeout=_TIMEOUT)  # the download itself has no such limit
        return snapshot_download(repository, allow_patterns=files)
    except Exception as e:  # hub clients raise their own errors, which differ between versions
        try:
            return snapshot_download(repository, allow_patterns=files, local_files_only=True)
        except Exception:
            why = ('has no such repository' if isinstance(e, RepositoryNotFoundError) else
                   f'can\'t be reached ({type(e).__name__})')
        raise ConnectionError(f'{what} is in no local folder, and the Hugging Face hub {why}. Without a connection, '
                              f'fetch {needed} elsewhere and point at their folder: {setting}') from e


def hub_file(repository: str, names: Sequence[str], what: str, setting: str, cache_dir: str | None = None) -> str:
    """Return the first of several files that a repository has, after a download if there is a network.

    Args:
        repository (str): Name of the repository.
        names (Sequence[str]): Names of files, the preferred one first.
        what (str): Name of what the file is, for the message.
        setting (str): Option that names a local file, for the message.
        cache_dir (str, optional): Folder for downloads. Defaults to None, that of the hub's client.

    Returns:
        str: A file in the cache.

    Raises:
        ConnectionError: None of the files is in the cache or to be had from the hub.
    """
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache

    try:
        there = {file.rfilename for file in HfApi().model_info(repository, timeout=_TIMEOUT).siblings or ()}
        name = next((name for name in names if name in there), names[0])
        return hf_hub_download(repository, name, cache_dir=cache_dir)
    except Exception as e:  # hub clients raise their own errors, which differ between versions
        cached = (try_to_load_from_cache(repository, name, cache_dir=cache_dir) for name in names)
        if found := next((path for path in cached if isinstance(path, str)), None):
            return found
        raise ConnectionError(
            f'{what} can\'t be downloaded from the Hugging Face hub ({type(e).__name__}). Without a connection, fetch '
            f'the whole repository elsewhere (hf download {repository} --local-dir FOLDER) and point at its weights: '
            f'{setting}=FOLDER/FILE') from e
