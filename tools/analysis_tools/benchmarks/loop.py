"""Training loop: whether the GPU, or on a CPU the step, ever waits for data or for the host.

Runs a config's training like tools/train.py: runner, data loader, hooks, log; frames are read from a store of
tools/data/cache_frames.py. Without --frames-from, clips of 240x320 pixels are generated and stored first. Weights are
random. N steps are timed, during which CUDA reports where the host waits for it, and N more are profiled; each N steps
include one log line. GPU utilization is the time during which a kernel runs, divided by the time from the first wait
for data to the end of all work.
"""
import argparse
import json
import math
from pathlib import Path

from vop_mm.utils.cli import add_common_arguments

from ._models import ROOT

MAX_CLIPS, WARM_UP = 32, 3
STEP, WAIT = 'training step', 'waiting for data'
# rows of the picture: categories in the profiler's trace, prefix of the names, color
ROWS = {WAIT: (('user_annotation', ), WAIT, '#c44e52'), 'step': (('user_annotation', ), STEP, '#4c72b0'),
        'of it backward': (('cpu_op', ), 'autograd::engine::evaluate_function', '#8172b3'),
        'of it optimizer': (('user_annotation', 'cpu_op'), 'Optimizer.step', '#937860'),
        'GPU: kernels': (('kernel', ), '', '#55a868')}

Interval = tuple[float, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand."""
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
    add_common_arguments(parser, '--cfg-options')


def run(args: argparse.Namespace) -> list[dict]:
    """Run the benchmark and return the rows of the table."""
    if args.steps < 2:
        raise ValueError(f'--steps must be at least 2, got {args.steps}')
    import torch

    from vop_mm.engine.experiment import build_runner, load_config, use_amp, use_stored_frames
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
        pairs = (WARM_UP + 2 * args.steps) * loader.batch_size
        if args.frames_from is None:
            make_data(loader.dataset, folder, min(MAX_CLIPS, math.ceil(pairs / 2)))
        use_stored_frames(cfg, args.frames_from or f'{folder}/frames')
        train_so_long(cfg, pairs, args.steps)
        if args.amp:
            use_amp(cfg)
        runner = build_runner(cfg)
        trace = folder / 'trace.json'
        measured = MeasureLoopHook(WARM_UP, args.steps, trace, (STEP, WAIT))
        runner.register_hook(measured)
        runner.train()
        content = trace.read_text()
    if args.trace:
        with atomic_write(args.trace, 'w') as file:
            file.write(content)
    timeline = read_trace(json.loads(content))
    if args.picture:
        arch = cfg.model.backbone.arch if isinstance(cfg.model.backbone.arch, str) else 'a CLIP of its own'
        what = f'{cfg.get("method") or Path(args.config).stem}, {arch}, {loader.batch_size} pairs a step'
        draw(timeline, args.picture, f'{what}, on {measured.gpu or "a CPU"}')
    for where in measured.waits:
        print(f'waits for the GPU in {args.steps} steps: {where}')
    return rows_of(measured, timeline, args.steps)


def make_data(dataset, folder: Path, count: int) -> None:
    """Change a dataset's config to generated clips with two captions each and stored frames."""
    from ._clips import encode_clip, store_clips

    clip, captions = encode_clip(folder / 'clip.mp4', 3, 12, 240, 320).read_bytes(), ['a red circle moves left'] * 2
    clips = [dict(video=f'{i}.mp4', filename=str(folder / f'{i}.mp4')) for i in range(count)]
    for made in clips:
        Path(made['filename']).write_bytes(clip)
    store_clips(dataset.pipeline, clips, folder / 'frames/train')
    (folder / 'train.json').write_text(json.dumps(dict(
        metainfo=dict(dataset='made', split='train', protocol='1:n'),
        data_list=[dict(video_id=made['video'], video=made['video'], captions=captions) for made in clips])))
    dataset.update(data_root=str(folder), ann_file='train.json', data_prefix=dict(video=''))


def train_so_long(cfg, pairs: int, interval: int) -> None:
    """Change a config to one epoch of ``pairs`` pairs of repeated data, with a log line every ``interval`` steps."""
    loader = cfg.train_dataloader
    loader.dataset = dict(type='RepeatDataset', times=pairs, dataset=loader.dataset)
    loader.num_batch_per_epoch = pairs // loader.batch_size
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    cfg.default_hooks.logger.interval = interval
    cfg.model.backbone.weights = None
    cfg.log_level = 'ERROR'
    cfg.resume, cfg.load_from = False, None


def read_trace(trace: dict) -> dict[str, list[Interval]]:
    """Extract the intervals of every row of :data:`ROWS`, in milliseconds, from a trace of ``torch.profiler``."""
    events = [event for event in trace['traceEvents'] if event.get('ph') == 'X']
    return {row: sorted((event['ts'] / 1e3, (event['ts'] + event['dur']) / 1e3) for event in events
                        if event.get('cat') in categories and event['name'].startswith(name))
            for row, (categories, name, _) in ROWS.items()}


def gpu_busy(timeline: dict[str, list[Interval]]) -> float:
    """Return the share of time during which a kernel ran, from the first wait for data to the end of all work, 0..1."""
    kernels = timeline['GPU: kernels']
    start = reached = min(timeline[WAIT] + timeline['step'])[0]
    busy = 0.
    for begin, end in kernels:
        busy += max(end - max(begin, reached), 0)
        reached = max(end, reached)
    return busy / (max(end for _, end in timeline['step'] + kernels) - start)


def draw(timeline: dict[str, list[Interval]], path: Path, title: str) -> None:
    """Draw a timeline of two steps in the middle as a PNG file."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot

    from vop_mm.utils.files import atomic_write

    first = len(timeline['step']) // 2 - 1
    (begin, _), (_, end) = timeline['step'][first:first + 2]
    begin = max((wait for wait in timeline[WAIT] if wait[0] < begin), default=(begin, ))[0]
    figure, axes = pyplot.subplots(figsize=(9, 2.4), dpi=110, layout='constrained')
    for row, (name, (*_, color)) in enumerate(ROWS.items()):
        axes.broken_barh([(a - begin, b - a) for a, b in timeline[name]], (row - 0.38, 0.76), color=color, linewidth=0)
    if not timeline['GPU: kernels']:
        axes.text((end - begin) / 2, len(ROWS) - 1, 'no GPU here: nothing to see', ha='center', va='center')
    axes.set_yticks(range(len(ROWS)), ROWS)
    axes.set_ylim(len(ROWS) - 0.5, -0.5)
    axes.set_xlim(0, end - begin)
    axes.set_xlabel('ms; 2 steps')
    axes.set_title(title, fontsize=10, loc='left')
    with atomic_write(path) as file:
        figure.savefig(file, format='png')
    pyplot.close(figure)


def rows_of(measured, timeline: dict[str, list[Interval]], steps: int) -> list[dict]:
    """Return the results and their targets as table rows."""
    step, wait, waits = measured.step_time, measured.wait_time, len(measured.waits)
    kept = 1 - wait / step
    rows = [dict(what='a step', figure=f'{1000 * step:.1f} ms', value=step),
            dict(what='of it waiting for data', figure=f'{1000 * wait:.2f} ms', value=wait),
            dict(what='share of a step not spent waiting for data', figure=f'{kept:.1%}', value=kept)]
    read = dict(what=f'reads of the device in {steps} steps with one log', target='at most 1')
    busy = dict(what='share of the time in which the GPU is busy', target='at least 95%')
    if not measured.gpu:
        return [*rows, *(dict(row, figure='no GPU here: not measured', value=None) for row in (read, busy))]
    share = gpu_busy(timeline)
    return [*rows, dict(read, figure=str(waits), value=waits, met=waits <= 1),
            dict(busy, figure=f'{share:.1%}', value=share, met=share >= 0.95)]
