"""Files of repositories of the Hugging Face hub."""
from collections.abc import Sequence

_TIMEOUT = 5.  # seconds; the hub's clients would try for a minute without a network


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
