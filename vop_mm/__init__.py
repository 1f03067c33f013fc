"""VoP: parameter-efficient tuning of CLIP for text-video retrieval.

Importing the package only checks the environment; its subpackages are imported on demand. If the program is one of
the tools, Ctrl-C ends it with a one-line message from here on.
"""
from .early_interrupt import end_tool_at_interrupt

end_tool_at_interrupt()

from .utils.version_guard import check_environment  # noqa: E402
from .version import __version__  # noqa: E402

check_environment()

__all__ = ['__version__']
