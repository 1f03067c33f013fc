"""Remote files: addresses, readers and temporary copies."""
from .addresses import add_name, is_address, public_address, without_secrets
from .backend_files import BackendFiles
from .fsspec_files import FsspecFiles
from .http_files import HttpFiles
from .scratch import FileStat, scratch_file

__all__ = [
    'BackendFiles', 'FileStat', 'FsspecFiles', 'HttpFiles', 'add_name', 'is_address', 'public_address', 'scratch_file',
    'without_secrets'
]
