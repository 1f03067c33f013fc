"""What a run says before its first step: where it runs, what trains, and what looks wrong about it."""
import platform
from collections.abc import Sequence
from pathlib import Path

import mmengine
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import _ParamScheduler
from mmengine.runner import BaseLoop, IterBasedTrainLoop
from torch import nn

from vop_mm.version import __version__


def log_environment(logger: MMLogger, cfg: Config, work_dir: str, seed: int | None, launcher: str,
                    world_size: int) -> None:
    """Say where this runs, in lines; the whole config is in the work directory.

    Args:
        logger (MMLogger): Where to.
        cfg (Config): The experiment's.
        work_dir (str): Where it is written to.
        seed (int, optional): Random seed.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        world_size (int): Processes.
    """
    device = f'{torch.cuda.device_count()} x {torch.cuda.get_device_name()}' if torch.cuda.is_available() else 'no GPU'
    logger.info(f'vop_mm {__version__}, Python {platform.python_version()}, torch {torch.__version__}, mmengine '
                f'{mmengine.__version__}; {platform.machine()}, {device}')
    logger.info(f'Distributed launcher: {launcher}, processes: {world_size}, seed: {seed}')
    if cfg.filename is not None:
        logger.info(f'Config: {cfg.filename}, with all its values in {Path(work_dir) / Path(cfg.filename).name}')


def log_what_trains(logger: MMLogger, model: nn.Module, cfg: Config) -> None:
    """Say how many parameters train, and warn of layers that were left without a prompt.

    Args:
        logger (MMLogger): Where to.
        model (nn.Module): The retriever, not yet wrapped.
        cfg (Config): The experiment's, with ``method``.
    """
    numbers = [(p.numel(), p.requires_grad) for p in model.parameters()]
    total, trainable = sum(n for n, _ in numbers), sum(n for n, trains in numbers if trains)
    logger.info(f'{cfg.get("method") or type(model).__name__}: {trainable:,} of {total:,} parameters '
                f'({100 * trainable / max(total, 1):.2f}%)')
    for message in layers_without_prompts(model, cfg):
        logger.warning(message)


def refuse_layers_without_prompts(model: nn.Module, cfg: Config) -> None:
    """Refuse to train a method that promises prompts in all layers and lacks some.

    Args:
        model (nn.Module): The retriever, wrapped or not.
        cfg (Config): The experiment's; ``prompts_in_all_layers = True`` is the promise.

    Raises:
        ValueError: Layers have none.
    """
    if cfg.get('prompts_in_all_layers'):
        for message in layers_without_prompts(getattr(model, 'module', model), cfg):
            raise ValueError(message)


def layers_without_prompts(model: nn.Module, cfg: Config) -> list[str]:
    """Layers of an encoder with prompts that have none themselves.

    Args:
        model (nn.Module): The retriever.
        cfg (Config): Its config; with ``prompts_in_all_layers = False`` it is meant so.

    Returns:
        list[str]: A sentence for each encoder that has such layers.
    """
    if cfg.get('prompts_in_all_layers') is False or not hasattr(model, 'vision_tower'):
        return []
    vision, text, found = model.vision_tower, model.text_tower, []
    for key, providers, blocks in (
            ('frame_prompts or model.video_prompts', [*vision.prompts, *vision.cls_updates], model.clip.vision_blocks),
            ('text_prompts', [*text.prompts, *text.suffix_prompts], model.clip.text_blocks)):
        prompted = {layer for provider in providers for layer in getattr(provider, 'layers', range(len(blocks)))}
        bare = [layer for layer in range(len(blocks)) if layer not in prompted]
        if providers and bare:
            promise = ', of which its method promises prompts in all' if cfg.get('prompts_in_all_layers') else ''
            found.append(f'layers {_ranges(bare)} of the {len(blocks)} layers of {model.clip.arch_name}{promise}, have '
                         f'no prompt: give them some in model.{key}, or say prompts_in_all_layers=False if that is '
                         'meant')
    return found


def check_loop(logger: MMLogger, loop: BaseLoop, validates: bool) -> None:
    """Refuse a training without steps, and warn of one that never validates though it is to.

    Args:
        logger (MMLogger): Where to.
        loop (BaseLoop): Of training.
        validates (bool): There is something to validate with.

    Raises:
        ValueError: The training split doesn't fill a batch, and batches that aren't full are dropped.
    """
    if len(loop.dataloader) == 0:
        raise ValueError(f'the training split has {len(loop.dataloader.dataset)} pairs of video and caption, of which '
                         f'no process gets a batch of {loop.dataloader.batch_size}: lower train_dataloader.batch_size')
    unit, length = ('iteration', loop.max_iters) if isinstance(loop, IterBasedTrainLoop) else ('epoch', loop.max_epochs)
    if validates and loop.val_begin > length:
        logger.warning(f'Nothing is validated, and no best checkpoint kept: train_cfg.val_begin={loop.val_begin} lies '
                       f'behind the last {unit}, {length}')


def warn_of_schedules(logger: MMLogger, schedulers: Sequence[_ParamScheduler] | dict, loop: BaseLoop) -> None:
    """Warn where schedules end before or after training does.

    Args:
        logger (MMLogger): Where to.
        schedulers (Sequence | dict): As the runner built them; a dict has those of several optimizers.
        loop (BaseLoop): Of training, with ``max_epochs`` and ``max_iters``.
    """
    steps = len(loop.dataloader)
    for group in schedulers.values() if isinstance(schedulers, dict) else [schedulers]:
        last, name = 0, ''
        for scheduler in group:
            length = getattr(scheduler, 'T_max', None) or getattr(scheduler, 'total_steps', None)
            until = scheduler.end if length is None else scheduler.begin + length
            until = max([until, *(step + 1 for step in getattr(scheduler, 'milestones', ()))])
            until *= steps if scheduler.by_epoch else 1
            if until >= last:
                last, name = until, type(scheduler).__name__
        if group and last != loop.max_iters:
            logger.warning(f'{name} goes until step {last:,} ({last / steps:g} epochs), training until step '
                           f'{loop.max_iters:,} ({loop.max_iters / steps:g} epochs): train_cfg.max_epochs alone '
                           'stretches schedules that nobody set beside it')


def _ranges(numbers: list[int]) -> str:
    """``[0, 1, 2, 5]`` as ``0 to 2, 5``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ', '.join(str(part[0]) if len(part) == 1 else f'{part[0]} to {part[-1]}' for part in parts)
