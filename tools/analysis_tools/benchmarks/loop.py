"""The training loop itself: whether the GPU, or on a CPU the step, ever waits for data or for the host.

Runs a config's training as tools/train.py does: runner, data loader, hooks, log; frames come from a store of
tools/data/cache_frames.py. Without --frames-from there are clips that are made for this, 256 pixels high and wide, and
stored. Weights are random. N steps are timed, in N more the reads of the device are counted, and N more are profiled;
each N steps hold one log line. How busy the GPU is, is the time in which a kernel runs, by the time from the first wait
for data to the end of all work.
"""
import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

from ._models import ROOT
from ._timeline import Timeline, draw, gpu_busy, read_trace

MOST_CLIPS, SIZE = 32, 256
WARM_UP = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    default = 'configs/vop/vop_msrvtt.py'
    parser.add_argument('config', nargs='?', default=str(ROOT / default), help=f'config file (default: {default})')
    parser.add_argument('--steps', type=int, default=20, metavar='N', help='of each kind (default: 20)')
    parser.add_argument('--batch-size', type=int, metavar='N',
                        help='pairs of a step (default: the config\'s on a GPU, 2 elsewhere)')
    parser.add_argument('--frames-from', metavar='DIR',
                        help='train on the config\'s own data, frames from what cache_frames.py wrote here')
    parser.add_argument('--amp', action='store_true', help='train in bfloat16')
    parser.add_argument('--picture', type=Path, metavar='FILE.png', help='draw two steps')
    parser.add_argument('--trace', type=Path, metavar='FILE.json', help='keep the trace, for ui.perfetto.dev')
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE', help='change the config')


def run(args: argparse.Namespace) -> list[dict]:
    """Measure; rows as benchmark.py prints them."""
    if args.steps < 2:
        raise ValueError(f'--steps must be at least 2, got {args.steps}')
    import torch

    from vop_mm.apis.experiment import build_runner, load_config, use_amp, use_stored_frames
    from vop_mm.utils.files import atomic_write, temporary_folder

    from ._loop_hook import MeasureLoopHook

    with temporary_folder(None, 'benchmark') as folder:
        cfg = load_config(args.config, args.cfg_options, work_dir=f'{folder}/work')
        if cfg.get('train_cfg') is None:
            raise ValueError(f'{args.config} trains nothing')
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
        loader = cfg.train_dataloader
        loader.batch_size = args.batch_size or (loader.batch_size if torch.cuda.is_available() else 2)
        pairs = (WARM_UP + 3 * args.steps) * loader.batch_size
        if args.frames_from is None:
            made = make_clips(folder, min(MOST_CLIPS, math.ceil(pairs / 2)))
            loader.dataset.update(made)
            store_frames(args.config, f'{folder}/frames', [
                *(args.cfg_options or []), *(f'train_dataloader.dataset.{key}={value}' for key, value in made.items())])
        use_stored_frames(cfg, args.frames_from or f'{folder}/frames')
        train_so_long(cfg, pairs, args.steps)
        if args.amp:
            use_amp(cfg)
        runner = build_runner(cfg)
        trace = folder / 'trace.json'
        measured = MeasureLoopHook(WARM_UP, args.steps, trace)
        runner.register_hook(measured)
        runner.train()
        content = trace.read_text()
    if args.trace:
        with atomic_write(args.trace, 'w') as file:
            file.write(content)
    timeline = read_trace(json.loads(content))
    for where, count in measured.reads.where.items():
        print(f'reads the device in {args.steps} steps: {where}, {count} x')
    if args.picture:
        what = f'{cfg.get("method") or Path(args.config).stem}, {describe_clip(cfg)}'
        draw(timeline, args.picture, f'{what}, {cfg.train_dataloader.batch_size} pairs a step, on '
             + (measured.gpu or 'a CPU'))
    return rows_of(measured, timeline, args.steps)


def make_clips(folder: Path, count: int) -> dict[str, str]:
    """Clips of moving shapes as the demo has them, larger, with two captions; what a data set needs to find them."""
    import runpy

    import numpy as np

    from vop_mm.demo import make_split, paraphrases, render

    encode_clip = runpy.run_path(str(ROOT / 'tools/data/make_demo.py'))['encode_clip']
    times, items = (np.arange(36) + 0.5) / 36, []
    for i, (scene, _) in enumerate(make_split((0, 0, 0, 1), count, unique=False)):
        frames = render(scene.sprites, scene.background, times, SIZE)
        encode_clip(folder / f'{i}.mp4', np.round(np.clip(frames, 0, 1) * 255).astype(np.uint8))
        items.append(dict(video_id=str(i), video=f'{i}.mp4', captions=paraphrases(scene)))
    (folder / 'train.json').write_text(json.dumps(dict(
        metainfo=dict(dataset='made', split='train', protocol='1:n'), data_list=items)))
    return dict(data_root=str(folder), ann_file='train.json', data_prefix=dict(video=''))


def store_frames(config: str, out: str, options: list[str]) -> None:
    """Run tools/data/cache_frames.py on the training split."""
    done = subprocess.run([sys.executable, str(ROOT / 'tools/data/cache_frames.py'), config, '--out', out, '--split',
                           'train', '--cfg-options', *options], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'tools/data/cache_frames.py: {done.stderr.strip().splitlines()[0]}')


def train_so_long(cfg, pairs: int, interval: int) -> None:
    """Change a config: one epoch of as many pairs, over data that repeats itself, with a log line every so many steps.
    """
    loader = cfg.train_dataloader
    loader.dataset = dict(type='RepeatDataset', times=pairs, dataset=loader.dataset)
    loader.num_batch_per_epoch = pairs // loader.batch_size
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    cfg.default_hooks.logger.interval = interval
    cfg.model.clip.weights = None
    cfg.log_level = 'ERROR'
    cfg.resume, cfg.load_from = False, None


def describe_clip(cfg) -> str:
    """Name of the architecture."""
    arch = cfg.model.clip.arch
    return arch if isinstance(arch, str) else 'a CLIP of its own'


def rows_of(measured, timeline: Timeline, steps: int) -> list[dict]:
    """What was found, beside targets."""
    step, wait = measured.step_time, measured.wait_time
    kept = 1 - wait / step
    rows = [dict(what='a step', figure=f'{1000 * step:.1f} ms', value=step),
            dict(what='of it waiting for data', figure=f'{1000 * wait:.2f} ms', value=wait),
            dict(what='share of a step not spent waiting for data', figure=f'{kept:.1%}', value=kept),
            dict(what=f'reads of the device in {steps} steps with one log', figure=str(measured.reads.count),
                 value=measured.reads.count, target='at most 1', met=measured.reads.count <= 1)]
    busy = dict(what='share of the time in which the GPU is busy', target='at least 95%')
    if not measured.gpu:
        return [*rows, dict(busy, figure='no GPU here: not measured', value=None)]
    share = gpu_busy(timeline)
    return [*rows, dict(what=f'copies from the GPU in {steps} profiled steps', figure=str(timeline.copies_back),
                        value=timeline.copies_back), dict(busy, figure=f'{share:.1%}', value=share, met=share >= 0.95)]
