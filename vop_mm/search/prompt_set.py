"""A prompt set, ready to encode; several of them share one frozen CLIP."""
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from vop_mm.config.values import walk
from vop_mm.datasets.transforms import HFTokenizer, split_pipeline
from vop_mm.engine.checkpoint import CheckpointError, load_from_local_safely, match, naming
from vop_mm.models.backbones.base import OPENAI_MEAN, OPENAI_STD, Backbone, fingerprint
from vop_mm.models.tuning import trainable_state_dict
from vop_mm.registry import MODELS, TOKENIZERS
from vop_mm.utils.shared_config import (
    SharedConfigError,
    building,
    current_names,
    parse_config,
    read_shared_config,
    shared_config,
)
from vop_mm.utils.tokenizer_names import on_hub, open_clip_tokenizers

from .clip_loader import ClipLoader
from .search_index import SearchIndex

_BACKBONE_PREFIX = 'backbone.'  # prefix of the backbone's own tensors
_TRAINING_KEYS = ('backbone', 'loss', 'tuning', 'recompute')


class IndexSource(NamedTuple):
    """Config and path of the checkpoint that an index was made with."""
    cfg: Config
    checkpoint: str | None


class PromptSet:
    """A model with its tokenizer and frame loader.

    The model is in evaluation mode, on its device; the other arguments are those of :class:`VideoSearcher`.

    Attributes:
        loader (ClipLoader): Loader of its frames.
        settings (dict): Settings that affect embeddings, to compare with those of an index.
    """

    def __init__(self, model: nn.Module, cfg: Config, checkpoint: str | Path | None = None, batch_size: int = 32,
                 num_workers: int = 1, timeout: float = 60., bf16: bool = False) -> None:
        self.model, self.cfg, self.checkpoint = model, cfg, checkpoint
        self.batch_size, self.bf16 = batch_size, bf16
        self._config_text: str | None = None
        self.device = next(model.backbone.parameters()).device
        self.loader = ClipLoader(cfg, num_workers, timeout)
        self.loader.try_out(*model.backbone.image_size)
        tokenize = split_pipeline(cfg.test_dataloader.dataset.pipeline).tokenize
        self.tokenizer = TOKENIZERS.build(tokenize.get('tokenizer', dict(type='CLIPTokenizer')))
        self.settings = dict(
            CLIP=f'{model.backbone.arch_name}, fingerprint {model.backbone.fingerprint}',
            prompts=f'{cfg.get("method")}, fingerprint {fingerprint(_older_names(trainable_state_dict(model)))}',
            **{key: str(value) for key, value in self.loader.settings[0].items()},
            model=_digest({**{key: value for key, value in cfg.model.items() if key not in _TRAINING_KEYS},
                           'num_frames': model.vision_tower.num_frames, **_normalization(model, cfg)}),
            augment=_digest(self.loader.settings[1:]),
            dim=self.encode_text(['a']).shape[1],
            **({} if model.head.is_cosine else dict(kept=self._measure_kept())))

    def source(self) -> dict:
        """Return what is needed to load the same prompts from any folder: config text and checkpoint path."""
        if self._config_text is None:  # takes MMEngine a second, and is needed for each part of a collection
            cfg = _absolute(self.cfg.to_dict())
            if folder := cfg['model']['backbone'].get('hf_folder'):
                cfg['model']['backbone']['hf_folder'] = os.path.abspath(os.path.expanduser(folder))
            if cfg['model']['backbone'].get('cache_dir') is not None:  # not accepted from data: see shared_config.py
                cfg['model']['backbone'].update(weights=os.path.abspath(self.model.backbone.file), cache_dir=None)
            if isinstance(self.tokenizer, HFTokenizer):
                _name_folder(cfg, self.tokenizer)
            self._config_text = Config(cfg).pretty_text
        return dict(config=self._config_text, checkpoint=self.checkpoint and os.path.abspath(self.checkpoint))

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Encode captions. [n] str -> [n, D] float32, unit norm."""
        return self._in_batches(self.model.encode_text, texts)

    def keep_text(self, texts: Sequence[str]) -> np.ndarray:
        """Encode captions to the head's text features, for :meth:`score`. [n] str -> [n, ...] float32."""
        return self._in_batches(self.model.keep_text, texts)

    def score(self, texts: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Score captions from :meth:`keep_text` against clips with the model's head; return scores float32 [n, m].

        Clips are the values that follow the vectors in the result of :meth:`encode_frames`, [m, kept].
        """
        frames, kept = self.model.vision_tower.num_frames, torch.from_numpy(np.array(kept)).to(self.device)
        videos, mask = kept[:, :-frames].unflatten(1, self._kept_shape), kept[:, -frames:] > 0
        return self._run(lambda: self.model.head.similarity(torch.from_numpy(texts).to(self.device), videos, mask))

    def score_one(self, texts: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Score captions from :meth:`keep_text` against one clip from :meth:`encode_frames`; return scores [n]."""
        if self.model.head.is_cosine:
            return texts @ row  # [n, D] @ [D] -> [n]
        return self.score(texts, row[None, self.settings['dim']:])[:, 0]

    def scorers(self, queries: Sequence[str]) -> list[Callable[[np.ndarray], np.ndarray] | None]:
        """Return a function for each query that re-ranks clips, [m, kept] -> [m]; None for a cosine head."""
        if self.model.head.is_cosine:
            return [None] * len(queries)
        return [lambda kept, text=text: self.score(text[None], kept)[0] for text in self.keep_text(queries)]

    def _in_batches(self, encode: Callable[[Tensor], Tensor], texts: Sequence[str]) -> np.ndarray:
        batches = [self._run(lambda batch=texts[i:i + self.batch_size]: encode(self._tokens(batch)))
                   for i in range(0, len(texts), self.batch_size)]
        return np.concatenate(batches) if batches else np.empty((0, self.settings['dim']), np.float32)

    def _tokens(self, texts: Sequence[str]) -> Tensor:
        return self.model.backbone.cut_captions(self.tokenizer(list(texts))).to(self.device)

    @torch.inference_mode()
    def _measure_kept(self) -> int:
        """Return the number of values stored per clip after its vector: the head's features and the frame mask."""
        shape = 1, self.model.vision_tower.num_frames, 3, *self.model.backbone.image_size
        kept = self.model.keep_video(torch.zeros(shape, device=self.device))
        self._kept_shape = kept.shape[1:]
        return kept.numel() + shape[1]

    def encode_frames(self, frames: Tensor, num_frames: Sequence[int]) -> np.ndarray:
        """Encode one batch of clips, uint8 [n, F, 3, H, W], each with its number of real (not padded) frames.

        Returns:
            np.ndarray: float32 [n, D], unit norm. If the head is not a cosine, each vector is followed by the head's
            features of the clip and the mask of real frames, [n, D + kept].
        """
        preprocessor, head = self.model.data_preprocessor, self.model.head
        mask = preprocessor.frame_mask(num_frames, frames.shape[1])

        def rows() -> Tensor:
            kept = self.model.keep_video(preprocessor.normalize(frames.to(self.device)), mask)
            vectors = head.vector(kept, mask)
            if head.is_cosine:
                return vectors
            whole = torch.ones(frames.shape[:2], device=self.device) if mask is None else mask
            return torch.cat([vectors.float(), kept.flatten(1).float(), whole.float()], dim=1)

        return self._run(rows)

    def try_out(self) -> None:
        """Encode a black clip, before anything made with this model is stored; refuse what is not finite."""
        self.encode_frames(*self.loader.load_frames(np.zeros((1, *self.model.backbone.image_size, 3), np.uint8)))

    @torch.inference_mode()
    def _run(self, call) -> np.ndarray:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            embeddings = call().float().cpu().numpy()
        if not np.isfinite(embeddings).all():
            made_of = self.checkpoint or self.model.backbone.weights or 'the model'
            raise CheckpointError(f'embeddings of {made_of} are not finite: the weights are damaged, or training '
                                  'diverged')
        return embeddings


def shared_backbone(backbone: Backbone, checkpoint: str | Path, cfg: Config) -> tuple[nn.Module, Config]:
    """Build a model from a checkpoint's prompts and a CLIP shared with other prompts, which is not modified.

    The given config is used for everything that the checkpoint doesn't specify.

    Returns:
        tuple[nn.Module, Config]: Model in evaluation mode, and the config that it was trained with.

    Raises:
        FileNotFoundError: The checkpoint is missing.
        CheckpointError: The checkpoint can't be read, is for another CLIP, or changes the backbone's own weights.
    """
    content = load_from_local_safely(str(checkpoint), map_location='cpu')
    meta = content['meta']
    own = backbone_names(content['state_dict'])
    if own:
        method = (meta.get('vop_mm') or {}).get('method')
        raise CheckpointError(f'{checkpoint} (method {method}) cannot share a backbone: it changes weights of CLIP '
                              f'({own[0]} and {len(own) - 1} more); load it alone')
    try:
        cfg = with_checkpoints_config(cfg, meta)
    except SharedConfigError as e:
        raise CheckpointError(f'{checkpoint} is refused: in its config, {e}') from None
    # a shared CLIP is not trained, and the checkpoint holds only what surrounds it
    parts = {**cfg.model, 'backbone': backbone, 'tuning': dict(type='PromptTuning')}
    with building(f'the model of {checkpoint}'):
        with torch.device('meta'):  # takes no memory, whatever the config says: shapes are compared with the file's
            model = MODELS.build(parts)
        with naming(checkpoint):
            match(content, model)
        model = MODELS.build(parts)
    model.load_state_dict(content['state_dict'])
    return model.to(next(backbone.parameters()).device).eval(), cfg


def backbone_names(state: dict[str, Tensor]) -> list[str]:
    """Return the names of a checkpoint's tensors that belong to the backbone."""
    return [name for name in state if name.startswith(_BACKBONE_PREFIX)]


def _older_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    # indexes made when the backbone was called clip keep their fingerprints
    return {re.sub(r'^backbone\.', 'clip.', name): value for name, value in state.items()}


def with_checkpoints_config(cfg: Config, meta: dict) -> Config:
    """Return the config in a checkpoint's metadata with the CLIP of another config, or that one if there is none."""
    found = read_shared_config(meta['cfg'], with_backbone=False) if 'cfg' in meta else None
    if found is None:
        return cfg
    found.model.backbone = cfg.model.backbone
    tokenizer = split_pipeline(cfg.test_dataloader.dataset.pipeline).tokenize.get('tokenizer')
    for step in _tokenizing(found):
        if _is_hugging_face(tokenizer) and _is_hugging_face(step.get('tokenizer', tokenizer)):
            step['tokenizer'] = tokenizer  # its folder is another one on another machine
    return found


def published_config(text: str) -> str | None:
    """Reduce a checkpoint's config to what :func:`with_checkpoints_config` uses, for publishing.

    It keeps the model and how frames and texts are made for it: no path of weights or of a tokenizer that comes with
    them, no dataset, nothing of the run.
    None if the config has no model or no test pipeline.
    SharedConfigError: the recipient of the file would refuse it.
    """
    content = parse_config(text)
    if isinstance(content.get('model'), dict):
        model = content['model'] = current_names(content['model'])
        if isinstance(backbone := model.get('backbone'), dict):
            model['backbone'] = {key: None if key == 'weights' else value for key, value in backbone.items()
                                 if key not in ('cache_dir', 'compile', 'hf_folder')}
    cfg = shared_config(content)
    if cfg is None:
        return None
    cfg.test_dataloader = dict(dataset=dict(pipeline=cfg.test_dataloader.dataset.pipeline))
    for step in _tokenizing(cfg):
        if _is_hugging_face(step.get('tokenizer')) and not on_hub(step['tokenizer']['name']):
            del step['tokenizer']
    return cfg.pretty_text


def _tokenizing(cfg: Config) -> Iterator[dict]:
    return (step for _, step in walk(cfg.test_dataloader)
            if isinstance(step, dict) and step.get('type') in ('TokenizeText', 'vop_mm.TokenizeText'))


def _is_hugging_face(tokenizer) -> bool:
    return isinstance(tokenizer, dict) and tokenizer.get('type') in ('HFTokenizer', 'vop_mm.HFTokenizer')


def read_source(index: str | Path) -> IndexSource:
    """Read the config and checkpoint that an index was made with, as data; see :meth:`PromptSet.source`.

    Raises:
        FileNotFoundError: The index is missing.
        ValueError: The index doesn't contain them, or its config contains something that is not allowed.
    """
    source = SearchIndex.source(index)
    source = source if isinstance(source, dict) else {}
    checkpoint = source.get('checkpoint')
    try:
        cfg = read_shared_config(source['config']) if source.get('config') else None
    except SharedConfigError as e:
        raise SharedConfigError(f'the index {index} is refused: in its config, {e}') from None
    if cfg is None or not isinstance(checkpoint, (str, type(None))) or checkpoint == '':
        raise ValueError(f'the index {index} has no config: index the videos again with --config')
    return IndexSource(cfg, checkpoint)


def _normalization(model: nn.Module, cfg: Config) -> dict:
    """Return mean and deviation if they are the backbone's, not the config's, and other than OpenAI's."""
    declared, given = model.backbone.preprocessing, cfg.model.get('data_preprocessor') or {}
    return {name: getattr(declared, name) for name, usual in (('mean', OPENAI_MEAN), ('std', OPENAI_STD))
            if given.get(name) is None and getattr(declared, name) != usual}


def _absolute(value):
    """Make the paths of existing files in a value absolute."""
    if isinstance(value, dict):
        return {key: _absolute(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_absolute(item) for item in value]
    return os.path.abspath(value) if isinstance(value, str) and os.path.isfile(value) else value


def _name_folder(cfg: dict, tokenizer: HFTokenizer) -> None:
    """Put a tokenizer's folder in place of its name, unless it is one of the hub that is accepted from data."""
    if on_hub(tokenizer.name) and tokenizer.name in open_clip_tokenizers():
        return
    for _, part in walk(cfg):
        if _is_hugging_face(part) and part.get('name') == tokenizer.name:
            part['name'] = tokenizer.folder


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]
