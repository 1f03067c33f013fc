"""List the kinds of open_clip's architectures and the methods that work on each.

    python tools/analysis_tools/list_backbones.py [ARCH ...]

Every architecture is built, and every method is built and run on the smallest of each kind, on the meta device: no
weights are read or downloaded.
"""
import argparse
from pathlib import Path

from vop_mm.utils.cli import run_cli

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
METHODS = {
    'text prompts': ['ablations/text_only'],
    'visual prompts': ['ablations/visual_only'],
    'VoP, ^P, ^C, ^F': [f'vop/vop{name}_msrvtt' for name in ('', '_p', '_c', '_f', '_f_p', '_f_c')],
    'Adapter, Partial': [f'baselines/{name}_msrvtt' for name in ('adapter_attn', 'adapter_ffn', 'partial')],
    'Proj': ['baselines/proj_msrvtt'],
    'Bias, Full, zero-shot': [f'baselines/{name}_msrvtt' for name in ('bias', 'full', 'zero_shot')]}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='List the kinds of open_clip\'s architectures and what works on each.')
    parser.add_argument('archs', nargs='*', metavar='ARCH', help='names of architectures (default: all)')
    parser.add_argument('--all', action='store_true', help='a row for every architecture, without methods')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    import open_clip
    from rich.console import Console
    from rich.progress import track

    from vop_mm.models.backbones import OpenCLIP
    from vop_mm.utils import register_all_modules

    register_all_modules()
    for arch in args.archs:
        OpenCLIP.preprocessing_of(arch)  # an unknown name is an error before the others are built
    console = Console(stderr=True)
    found = [_describe(arch) for arch in track(sorted(args.archs or open_clip.list_models(), key=str.lower), 'building',
                                               transient=True, console=console)]
    if args.all:
        rows = [{key: row[key] for key in ('architecture', 'vision tower', 'text tower')} for row in found]
    else:
        kinds = {}
        for row in found:
            kinds.setdefault((row['vision tower'], row['text tower']), []).append(row)
        rows = [_kind(vision, text, members) for (vision, text), members in
                track(sorted(kinds.items(), key=lambda item: -len(item[1])), 'running methods', transient=True,
                      console=console)]
    print(f'| {" | ".join(rows[0])} |\n|{"---|" * len(rows[0])}')
    for row in rows:
        print(f'| {" | ".join(str(value) for value in row.values())} |')
    return 0


def _describe(arch: str) -> dict:
    import torch

    from vop_mm.registry import MODELS

    try:
        with torch.device('meta'):
            backbone = MODELS.build(dict(type='OpenCLIP', arch=arch))
    except (ValueError, ImportError, ConnectionError) as e:
        return {'architecture': arch, 'vision tower': '-', 'text tower': f'not built: {_reason(e)}', 'size': 0}
    return {'architecture': arch, 'vision tower': backbone.vision_kind, 'text tower': backbone.text_kind,
            'size': sum(p.numel() for p in backbone.parameters())}


def _reason(error: Exception) -> str:
    text = str(error)
    return 'needs transformers' if 'transformers' in text else 'its config is on a hub' if 'hub' in text else text


def _kind(vision: str, text: str, members: list[dict]) -> dict:
    """Return the row of a kind; methods run on its smallest member."""
    members = sorted(members, key=lambda row: row['size'])
    names = [row['architecture'] for row in members]
    row = {'number': len(members), 'vision tower': vision, 'text tower': text,
           'examples': ', '.join(names[:3]) + (' ...' if len(names) > 3 else '')}
    for title, configs in METHODS.items():
        row[title] = '' if vision == '-' else 'yes' if all(_works(config, names[0]) for config in configs) else 'no'
    return row


def _works(config: str, arch: str) -> bool:
    import torch

    from vop_mm.config import read_config
    from vop_mm.registry import MODELS

    cfg = read_config(CONFIGS / f'{config}.py', dict(num_frames=2, model=dict(
        num_frames=2, backbone=dict(arch=arch, weights=None))))  # an LSTM takes a second per frame on the meta device
    try:
        with torch.device('meta'):
            model = MODELS.build(cfg.model)
            frames = torch.zeros(2, cfg.model.num_frames, 3, *model.backbone.image_size)
            tokens = torch.ones(3, model.text_tower.max_words, dtype=torch.int64)
            kept = model(frames, tokens, mode='tensor')
    except ValueError:  # refused by name
        return False
    return kept['video_features'].shape[0] == 2 and kept['text_features'].shape[0] == 3


if __name__ == '__main__':
    run_cli(main)
