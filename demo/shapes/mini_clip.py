"""Make the architecture of the mini CLIP known under the name ``MiniCLIP``."""
from pathlib import Path

from vop_mm.models.backbones.open_clip_port import ARCHITECTURES

ARCHITECTURES.append(Path(__file__).resolve().parents[1] / 'mini_clip' / 'MiniCLIP.json')
