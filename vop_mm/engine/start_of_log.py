"""Log messages and checks before the first step: environment, trainable parameters, likely mistakes."""
import math
import platform
from collections.abc import Sequence
from pathlib import Path

import mmengine
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.utils.dl_utils import collect_env
from torch import nn

from vop_mm.version import __version__


def log_environment(logger: MMLogger, cfg: Config, work_dir: str, seed: int | None, launcher: str,
                    world_size: int) -> None:
    """Log the environment in a few lines, or in full if the config's ``log_level`` is ``'DEBUG'``.

    Args:
        logger (MMLogger): The logger.
        cfg (Config): Config of the experiment.
        work_dir (str): Folder to which the config is written.
        seed (int, optional): Random seed.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        world_size (int): Number of processes.
    """
    device = f'{torch.cuda.device_count()} x {torch.cuda.get_device_name()}' if torch.cuda.is_available() else 'no GPU'
    logger.info(f'vop_mm {__version__}, Python {platform.python_version()}, torch {torch.__version__}, mmengine '
                f'{mmengine.__version__}; {platform.machine()}, {device}')
    logger.info(f'Distributed launcher: {launcher}, processes: {world_size}, seed: {seed}')
    if cfg.get('log_level') == 'DEBUG':
        logger.debug('System environment:\n' + '\n'.join(f'{key}: {value}' for key, value in collect_env().items()))
        logger.debug(f'Config:\n{cfg.pretty_text}')
    if cfg.filename is not None:
        logger.info(f'Config: {cfg.filename}, with all its values in {Path(work_dir) / Path(cfg.filename).name}')


def log_what_trains(logger: MMLogger, model: nn.Module, cfg: Config) -> None:
    """Log the number of trainable parameters, and warn about layers without a prompt.

    Args:
        logger (MMLogger): The logger.
        model (nn.Module): The retriever, not wrapped yet.
        cfg (Config): Config of the experiment, with ``method``.
    """
    numbers = [(p.numel(), p.requires_grad) for p in model.parameters()]
    total, trainable = sum(n for n, _ in numbers), sum(n for n, trains in numbers if trains)
    logger.info(f'{cfg.get("method") or type(model).__name__}: {trainable:,} of {total:,} parameters '
                f'({100 * trainable / max(total, 1):.2f}%)')
    for message in layers_without_prompts(model, cfg):
        logger.warning(message)


def refuse_layers_without_prompts(model: nn.Module, cfg: Config) -> None:
    """Raise an error if a method promises prompts in all layers and some layers have none.

    Args:
        model (nn.Module): The retriever, wrapped or not.
        cfg (Config): Config of the experiment; ``prompts_in_all_layers = True`` is the promise.

    Raises:
        ValueError: Some layers have no prompt.
    """
    if cfg.get('prompts_in_all_layers'):
        for message in layers_without_prompts(getattr(model, 'module', model), cfg):
            raise ValueError(message)


def layers_without_prompts(model: nn.Module, cfg: Config) -> list[str]:
    """Find layers without a prompt in encoders that have prompts.

    Args:
        model (nn.Module): The retriever.
        cfg (Config): Its config; ``prompts_in_all_layers = False`` declares such layers intended.

    Returns:
        list[str]: One sentence for each encoder with such layers.
    """
    if cfg.get('prompts_in_all_layers') is False or not hasattr(model, 'vision_tower'):
        return []
    vision, text, found = model.vision_tower, model.text_tower, []
    backbone = model.backbone
    for key, providers, blocks in (
            ('frame_prompts or model.video_prompts', [*vision.prompts, *vision.cls_updates], backbone.vision_blocks),
            ('text_prompts', [*text.prompts, *text.suffix_prompts], backbone.text_blocks)):
        prompted = {layer for provider in providers for layer in getattr(provider, 'layers', range(len(blocks)))}
        bare = [layer for layer in range(len(blocks)) if layer not in prompted]
        if providers and bare:
            promise = ', but the method requires prompts in all layers' if cfg.get('prompts_in_all_layers') else ''
            found.append(f'layers {_ranges(bare)} of the {len(blocks)} layers of {backbone.arch_name} have no prompt'
                         f'{promise}: add prompts in model.{key}, or set prompts_in_all_layers=False if this is '
                         'intended')
    return found


def check_loop(logger: MMLogger, loop: BaseLoop, validates: bool) -> None:
    """Raise an error for a training without steps, and warn if validation is configured but never runs.

    Args:
        logger (MMLogger): The logger.
        loop (BaseLoop): The training loop.
        validates (bool): Whether validation is configured.

    Raises:
        ValueError: The training split doesn't fill a batch, and incomplete batches are dropped.
    """
    if len(loop.dataloader) == 0:
        raise ValueError(f'the training split has {len(loop.dataloader.dataset)} pairs of video and caption, too few '
                         f'for a batch of {loop.dataloader.batch_size} in each process: lower '
                         'train_dataloader.batch_size')
    unit, length = ('iteration', loop.max_iters) if isinstance(loop, IterBasedTrainLoop) else ('epoch', loop.max_epochs)
    if validates and loop.val_begin > length:
        logger.warning(f'No validation and no best checkpoint: train_cfg.val_begin={loop.val_begin} is after the last '
                       f'{unit}, {length}')


def warn_of_schedules(logger: MMLogger, schedulers: Sequence | dict, loop: BaseLoop) -> None:
    """Warn if schedules do not end with training.

    Args:
        logger (MMLogger): The logger.
        schedulers (Sequence | dict): Schedulers as built by the runner; a dict holds those of several optimizers.
        loop (BaseLoop): The training loop, with ``max_epochs`` and ``max_iters``.
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
            logger.warning(f'{name} ends at step {last:,} ({last / steps:g} epochs), training at step '
                           f'{loop.max_iters:,} ({loop.max_iters / steps:g} epochs): train_cfg.max_epochs adjusts only '
                           'schedules that are not set explicitly')


def log_global_batch(logger: MMLogger, asked: float, rate: float, auto_scale_lr: dict | None, world_size: int,
                     batch_size: int, accumulated: int) -> None:
    """Log the global batch size, and warn if the learning rate was meant for another one.

    Args:
        logger (MMLogger): The logger.
        asked (float): Learning rate in the config.
        rate (float): Initial learning rate of the optimizer.
        auto_scale_lr (dict, optional): Entry of the config with ``base_batch_size``.
        world_size (int): Number of processes.
        batch_size (int): Number of pairs per process.
        accumulated (int): Number of steps in one update.
    """
    batch = world_size * batch_size * accumulated
    logger.info(f'Global batch {batch}: {world_size} processes with {batch_size} pairs, {accumulated} steps '
                f'accumulated; effective learning rate {rate:g}'
                + (f' ({asked:g} in the config)' if rate != asked else ''))
    meant_for = (auto_scale_lr or {}).get('base_batch_size', batch)
    if batch != meant_for and not auto_scale_lr.get('enable'):
        logger.warning(f'The learning rate {rate:g} was meant for a global batch of {meant_for}, this is {batch}: pass '
                       '--auto-scale-lr, or change train_dataloader.batch_size')


def log_caption_epochs(logger: MMLogger, loop: BaseLoop, accumulated: int) -> None:
    """Log how often each caption will be seen, and in how many updates; nothing for a loop that counts steps.

    Args:
        logger (MMLogger): The logger.
        loop (BaseLoop): The training loop.
        accumulated (int): Number of steps in one update.
    """
    if isinstance(loop, EpochBasedTrainLoop):
        updates = math.ceil(len(loop.dataloader) / accumulated)
        logger.info(f'{loop.max_epochs} caption-epochs over {len(loop.dataloader.dataset):,} pairs of video and '
                    f'caption, {updates:,} updates in each')


def _ranges(numbers: list[int]) -> str:
    """Format ``[0, 1, 2, 5]`` as ``0 to 2, 5``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ', '.join(str(part[0]) if len(part) == 1 else f'{part[0]} to {part[-1]}' for part in parts)
