"""Count the parameters, checkpoint size and operations of methods.

    python tools/analysis_tools/count_parameters.py [CONFIG ...]

Without configs, all rows of the paper's table on ViT-B/32. No weights are read or downloaded.
"""
import argparse
import json
import sys
from pathlib import Path

from vop_mm.utils.cli import add_common_arguments, run_cli

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
# Rows of the paper's table, in its order.
PAPER = ['baselines/full', 'baselines/bias', 'baselines/proj', 'baselines/partial', 'baselines/adapter_attn',
         'baselines/adapter_ffn', 'vop/vop', 'vop/vop_p', 'vop/vop_c', 'vop/vop_f', 'vop/vop_f_p', 'vop/vop_f_c']
NOTES = {
    'VoP^F+C': 'The paper prints 11.785%: 14,121,984 parameters, which is VoP^C less what VoP^F+P saves over VoP^P in '
               'four layers. But VoP^C has nothing to save there, its context module being shared by the layers: the '
               'architecture as described has 14,269,440.'}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Count trainable parameters, checkpoint bytes and operations.')
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='config files (default: the paper\'s rows)')
    parser.add_argument('--json', metavar='FILE', type=Path, help='write the rows here as well')
    add_common_arguments(parser, '--cfg-options', help='change every config')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    paths = args.configs or [str(CONFIGS / f'{name}_msrvtt.py') for name in PAPER]
    from vop_mm.utils.paths import require_file, require_folder
    for path in paths:
        require_file(path, 'config')
    require_folder(args.json)
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    clip_flops = {}
    rows = [_count(path, args.cfg_options, clip_flops)
            for path in track(paths, 'counting', transient=True, console=Console(stderr=True))]
    table = Table()
    for head in ('method', 'trainable', 'paper\'s count', '%', 'checkpoint MB', 'forward GFLOPs', 'x CLIP',
                 'training step GFLOPs'):
        table.add_column(head, justify='left' if head == 'method' else 'right')
    for row in rows:
        table.add_row(row['method'], f'{row["trainable"]:,}', f'{row["paper_count"]:,}', _percent(row),
                      f'{row["checkpoint_bytes"] / 1e6:.2f}', f'{row["forward_flops"] / 1e9:.1f}',
                      f'{row["forward_flops"] / row["clip_flops"]:.2f}', f'{row["training_flops"] / 1e9:.1f}')
    Console(width=None if Console().is_terminal else 120).print(table)
    print('paper\'s count: without tensors that are bare parameters of a larger module (attention in_proj, embeddings, '
          'projections,\nlogit scale, frame positions). FLOPs: one video, one caption of full length.')
    for row in rows:
        if row['method'] in NOTES and row['paper_count'] == 14_269_440:
            print(f'{row["method"]}: {NOTES[row["method"]]}')
    if args.json:
        from vop_mm.utils.files import atomic_write
        with atomic_write(args.json, 'w') as file:
            json.dump(rows, file, indent=1)
    return 0


def _percent(row: dict) -> str:
    return '100' if row['paper_percent'] == 100 else f'{row["paper_percent"]:.3f}'


def _count(path: str, options: list[str] | None, clip_flops: dict[str, int]) -> dict:
    import torch

    from vop_mm.config import read_config
    from vop_mm.engine import counting
    from vop_mm.engine.start_of_log import layers_without_prompts
    from vop_mm.registry import MODELS
    from vop_mm.utils import register_all_modules

    register_all_modules()
    cfg = read_config(path, options)
    cfg.model.backbone.weights = None
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    for message in layers_without_prompts(model, cfg):
        print(f'warning: {path}: {message}', file=sys.stderr)
    paper_count = counting.count_as_paper(model)
    frames = cfg.model.num_frames
    clip = json.dumps([cfg.model.backbone.to_dict(), frames], sort_keys=True)
    if clip not in clip_flops:  # counted once for all methods
        with torch.device('meta'):
            plain = MODELS.build(dict(type='TextVideoRetriever', backbone=cfg.model.backbone,
                                      tuning=dict(type='ZeroShot')))
        clip_flops[clip] = counting.count_flops(plain, frames)
    return dict(config=str(path), method=cfg.get('method') or Path(path).stem,
                trainable=counting.count_trainable(model), paper_count=paper_count,
                paper_percent=round(100 * paper_count / counting.count_backbone_as_paper(model), 3),
                checkpoint_bytes=counting.checkpoint_bytes(model, cfg),
                forward_flops=counting.count_flops(model, frames),
                training_flops=counting.count_flops(model, frames, training=True),
                clip_flops=clip_flops[clip])


if __name__ == '__main__':
    run_cli(main)
