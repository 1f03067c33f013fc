"""Models: backbones, prompts, heads, losses, and the strategies that decide which parameters train."""
from .backbones import *  # noqa: F401,F403
from .data_preprocessors import *  # noqa: F401,F403
from .heads import *  # noqa: F401,F403
from .losses import *  # noqa: F401,F403
from .prompts import *  # noqa: F401,F403
from .retrievers import *  # noqa: F401,F403
from .tuning import *  # noqa: F401,F403
