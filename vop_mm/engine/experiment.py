"""Build a runner from a config file; shared by tools/train.py and tools/test.py."""
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import FlexibleRunner, Runner

from vop_mm.config import parse_options, read_config, require_checkpoint
from vop_mm.config.meaning import stretch
from vop_mm.config.named_files import require_files
from vop_mm.utils import register_all_modules
from vop_mm.utils.files import atomic_write
from vop_mm.utils.interrupts import share_temporary_folder


def load_config(path: str | Path, options: list[str] | None = None, work_dir: str | None = None,
                launcher: str = 'none') -> Config:
    """Read a config and apply the command line's changes.

    Args:
        path (str | Path): Config file.
        options (list[str], optional): ``KEY=VALUE`` as given to ``--cfg-options``.
        work_dir (str, optional): Work directory. None: the config's, or ``work_dirs/NAME_OF_CONFIG``.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Returns:
        Config: Config for :func:`build_runner`, with ``frames_from`` already applied by :func:`use_stored_frames`.

    Raises:
        FileNotFoundError: The config file is missing.
        ValueError: An option has no ``=`` or doesn't fit the config, or the config has no model.
        PermissionError: The work directory is not writable.
    """
    options = parse_options(options or [])
    if 'launcher' in options:
        raise ValueError('launcher can\'t be set in the config: use --launcher')
    if work_dir and 'work_dir' in options:
        raise ValueError(f'two work directories, work_dir={options["work_dir"]} and {work_dir}: give only one')
    frames_from = options.pop('frames_from', None)
    cfg = read_config(path, options)
    if 'model' not in cfg:
        raise ValueError(f'{path} has no model')
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get('work_dir') or os.path.join('work_dirs', Path(path).stem)
    Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    if not os.access(cfg.work_dir, os.W_OK):
        raise PermissionError(f'the work directory can\'t be written: {cfg.work_dir}')
    frames_from = frames_from or cfg.pop('frames_from', None)
    if frames_from:
        use_stored_frames(cfg, frames_from)
    return cfg


def use_stored_frames(cfg: Config, folder: str) -> None:
    """Change a config to load frames from stores made by tools/data/cache_frames.py.

    Args:
        cfg (Config): Config, modified in place. A split without a store is still decoded.
        folder (str): Folder that contains ``train``, ``val`` and ``test``, or some of them.

    Raises:
        FileNotFoundError: There is no store for this config.
        ValueError: A pipeline does not support stored frames.
    """
    register_all_modules()
    from vop_mm.datasets.transforms import split_pipeline

    splits = [split for split in ('train', 'val', 'test') if cfg.get(f'{split}_dataloader')]
    stores = {split: os.path.join(folder, split) for split in splits if (Path(folder) / split).is_dir()}
    if not stores:
        raise FileNotFoundError(f'no stored frames of {cfg.filename} in {folder}: create them with '
                                'tools/data/cache_frames.py')
    for split, store in stores.items():
        dataset = cfg[f'{split}_dataloader'].dataset
        read, *rest = dataset.pipeline
        split_pipeline(dataset.pipeline)
        dataset.pipeline = [dict(read, store=store), *rest]
    print(f'using stored frames from {", ".join(stores.values())}'
          + ''.join(f'; decoding {split}' for split in splits if split not in stores))


def use_amp(cfg: Config, dtype: str = 'bfloat16') -> None:
    """Change a config to mixed precision.

    Args:
        cfg (Config): Config, modified in place.
        dtype (str): ``'bfloat16'`` or ``'float16'``.

    Raises:
        ValueError: The config trains nothing, or float16 was requested without a GPU.
    """
    if cfg.get('optim_wrapper') is None:
        raise ValueError('--amp applies to training, but this config does not train')
    if dtype == 'float16' and not torch.cuda.is_available():
        raise ValueError('--amp-dtype float16 requires a GPU; bfloat16 also runs on a CPU')
    # bfloat16 has float32's range: no loss scaling, and it runs on a CPU too
    cfg.optim_wrapper.type = 'AmpOptimWrapper' if dtype == 'float16' else 'AutocastOptimWrapper'
    cfg.optim_wrapper.dtype = dtype


def shorten(cfg: Config, epochs: int | None) -> Config:
    """Train for another number of epochs, with the learning rate schedule adapted to it.

    Args:
        cfg (Config): Config, modified in place and returned; unchanged if it trains nothing.
        epochs (int, optional): Number of epochs. None: as in the config.
    """
    if epochs and cfg.get('train_cfg') is not None:
        before, cfg.train_cfg.max_epochs = cfg.train_cfg.max_epochs, epochs
        stretch(cfg, before, epochs)
    return cfg


def build_runner(cfg: Config, splits: Sequence[str] = ()) -> Runner:
    """Register all modules, check that the files named by the config exist, and build the runner.

    Args:
        cfg (Config): Result of :func:`load_config`.
        splits (Sequence[str]): Splits that will be read: ``'train'``, ``'val'`` and ``'test'``. Defaults to those of
            training, or to the test split if the config trains nothing.

    Returns:
        Runner: Ready to ``train()`` or ``test()``.

    Raises:
        FileNotFoundError: A checkpoint, CLIP weights or a vocabulary is missing.
        AnnotationError: The annotation of a split is missing.
        ValueError: The config has a ``strategy``, which its runner does not support.
    """
    register_all_modules()
    from vop_mm.registry import RUNNERS
    require_files(cfg, splits or (('test',) if cfg.get('train_cfg') is None else ('train', 'val')))
    cfg.setdefault('runner_type', 'RetrievalRunner')
    if cfg.get('strategy') and not issubclass(RUNNERS.get(cfg.runner_type) or Runner, FlexibleRunner):
        raise ValueError(f'{cfg.runner_type} takes no strategy: set runner_type to a subclass of FlexibleRunner')
    share_temporary_folder()
    return RUNNERS.build(cfg)


def evaluate(config: str, checkpoint: str | None = None, options: list[str] | None = None, work_dir: str | None = None,
             launcher: str = 'none', result: str | None = None, **metric) -> None:
    """Evaluate the test split, as tools/test.py does.

    Args:
        config (str): See :func:`load_config`.
        checkpoint (str, optional): Trained checkpoint; None for a config that trains nothing.
        options (list[str], optional): See :func:`load_config`.
        work_dir (str, optional): See :func:`load_config`.
        launcher (str): See :func:`load_config`.
        result (str, optional): JSON file to write the metrics to.
        **metric: Arguments of the config's metric; empty values are ignored.
    """
    cfg = load_config(config, options, work_dir, launcher)
    require_checkpoint(cfg, checkpoint, 'to evaluate')
    if any(option.startswith(('load_from=', 'resume=')) for option in options or []):
        raise ValueError('load_from and resume apply to training: give the checkpoint as the second argument')
    cfg.load_from, cfg.resume = checkpoint, False
    first_metric(cfg).update({name: value for name, value in metric.items() if value})
    runner = build_runner(cfg, ['test'])
    metrics = runner.test()
    if result and runner.rank == 0:
        with atomic_write(result, 'w') as file:
            json.dump(dict(runner.test_evaluator.metrics[0].summary, **metrics), file, indent=1)


def first_metric(cfg: Config) -> dict:
    """Return the config of the test split's metric, of several the first: that of retrieval."""
    return cfg.test_evaluator[0] if isinstance(cfg.test_evaluator, list) else cfg.test_evaluator


def run_experiment(cfg: Config, result: str | Path, dump: str | Path | None = None, test: bool = True) -> dict:
    """Train if the config trains, evaluate the test split once, and write the result.

    The evaluated checkpoint is the best one on the dev split. An interrupted run continues from its last checkpoint; a
    run whose result exists is not repeated.

    Args:
        cfg (Config): Result of :func:`load_config`.
        result (str | Path): JSON file, written at the end.
        dump (str | Path, optional): File for the metric to write the test split's embeddings to.
        test (bool): False leaves the test split unread. Defaults to True.

    Returns:
        dict: ``config, method, seed, trainable, checkpoint, checkpoint_bytes, train_seconds, dev`` (metrics that the
        checkpoint was selected by) and, with a test, ``test_seconds, metrics, evaluated`` (dataset, split, protocol and
        sizes: the metric's summary).
    """
    from vop_mm.models.tuning import trainable_parameters

    result = Path(result)
    if result.is_file():
        return json.loads(result.read_text())
    if dump is not None:
        first_metric(cfg).dump = str(dump)
    trains = cfg.get('train_cfg') is not None
    cfg.resume = 'auto' if trains else False
    runner = build_runner(cfg, [*(['train', 'val'] if trains else []), *(['test'] if test else [])])
    start, checkpoint = time.perf_counter(), None
    if trains:
        runner.train()
        checkpoint = runner.message_hub.get_info('best_ckpt', None) or runner.message_hub.get_info('last_ckpt')
    outcome = dict(
        config=str(cfg.filename), method=cfg.get('method'), seed=cfg.randomness.seed,
        trainable=sum(p.numel() for p in trainable_parameters(runner.model).values()),
        checkpoint=checkpoint, checkpoint_bytes=os.path.getsize(checkpoint) if checkpoint else 0,
        train_seconds=time.perf_counter() - start if trains else 0., dev=_best_on_dev(runner))
    if test:
        if trains:
            runner.load_checkpoint(checkpoint)
        start = time.perf_counter()
        outcome['metrics'] = runner.test()
        outcome['evaluated'] = runner.test_evaluator.metrics[0].summary
        outcome['test_seconds'] = time.perf_counter() - start
    with atomic_write(result, 'w') as file:
        json.dump(outcome, file, indent=1)
    return outcome


def _best_on_dev(runner: Runner) -> dict[str, float]:
    """Return the evaluation that ``save_best`` kept; the first one in case of ties."""
    history = {name.removeprefix('val/'): buffer.data[0] for name, buffer in runner.message_hub.log_scalars.items()
               if name.startswith('val/') and not name.endswith('time')}
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    judge = history.get(hook.key_indicators[0]) if hook is not None and hook.save_best else None
    if judge is None:
        return {}
    best = max(range(len(judge)), key=lambda i: judge[i])
    return {name: float(values[best]) for name, values in history.items()}
