"""Build models from a config and a checkpoint."""
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from vop_mm.config import read_config
from vop_mm.utils import register_all_modules
from vop_mm.utils.paths import require_file


def init_model(config: str | Path | Config, checkpoint: str | Path | None = None, device: str = 'cpu',
               cfg_options: dict | None = None) -> nn.Module:
    """Build a retriever from its config, with CLIP weights and a checkpoint, ready to encode.

    Args:
        config (str | Path | Config): Config file, or a loaded config.
        checkpoint (str | Path, optional): Checkpoint from training or conversion. None: untrained prompts.
        device (str): Device of the model. Defaults to ``'cpu'``.
        cfg_options (dict, optional): Changes to the config, ``{'model.backbone.weights': '/path/to/ViT-B-32.pt'}``.

    Returns:
        VideoSearcher: Model in evaluation mode, with ``encode_frames``, ``encode_video``, ``encode_text`` and
        ``similarity``; its config is ``model.cfg``.

    Raises:
        FileNotFoundError: The config, checkpoint or CLIP weights are missing.
        ValueError: The config has no model, or ``cfg_options`` don't fit it.
        CheckpointError: The checkpoint can't be read, or belongs to another CLIP or method.

    Example:
        >>> model = init_model('configs/vop/vop_demo.py', 'work_dirs/vop_demo/best_t2v_R1_epoch_8.pth')
        >>> model.encode_text(tokens).shape
        torch.Size([4, 64])
    """
    register_all_modules()
    from vop_mm.engine.checkpoint import load_trainable
    from vop_mm.registry import MODELS

    cfg = read_config(config, cfg_options)
    if 'model' not in cfg:
        raise ValueError(f'{cfg.filename or "the config"} has no model')
    require_file(checkpoint)
    model = MODELS.build(cfg.model)
    if checkpoint is not None:
        load_trainable(model, str(checkpoint))
    model.cfg = cfg
    return model.to(torch.device(device)).eval()
