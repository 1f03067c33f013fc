"""Encode texts, videos and images with one or several prompt sets on a frozen CLIP."""
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from vop_mm.config import read_config
from vop_mm.engine.inference import init_model
from vop_mm.models.tuning import trainable_parameters, trainable_state_dict
from vop_mm.registry import MODELS
from vop_mm.utils import register_all_modules
from vop_mm.utils.map_ahead import map_ahead
from vop_mm.utils.paths import require_file
from vop_mm.utils.progress import progress_bar
from vop_mm.utils.shared_config import building

from .prompt_set import PromptSet, backbone_names, shared_backbone
from .unknown_words import UnknownWordsWarning, describe, find

_DEFAULT = 'default'
_Videos = str | Path | np.ndarray | Sequence


class Encoder:
    """Prompt sets on one CLIP, and the embeddings that they make; see :class:`VideoSearcher` for the arguments."""

    def __init__(self, config: str | Path | Config, checkpoint: str | Path | dict | None = None, device: str = 'cpu',
                 bf16: bool = False, batch_size: int = 32, num_workers: int = 2, timeout: float = 60.,
                 cfg_options: dict | None = None) -> None:
        register_all_modules()
        if batch_size < 1 or num_workers < 1:
            raise ValueError(f'batch_size and num_workers must be at least 1, got {batch_size} and {num_workers}')
        self.cfg = read_config(config, cfg_options)
        self.batch_size, self.num_workers = batch_size, num_workers
        self._options = dict(batch_size=batch_size, num_workers=num_workers, timeout=timeout, bf16=bf16)
        self._sets: dict[str, PromptSet] = {}
        if isinstance(checkpoint, dict):
            for file in checkpoint.values():
                require_file(file)
            self._backbone = MODELS.build(self.cfg.model.backbone).requires_grad_(False).to(torch.device(device)).eval()
            for name, file in checkpoint.items():
                self.add_prompts(name, file)
        else:
            model = init_model(self.cfg, checkpoint, device)
            if checkpoint is None and trainable_parameters(model):
                warnings.warn('no checkpoint was given: the prompts are untrained', stacklevel=2)
            self._sets[_DEFAULT] = PromptSet(model, self.cfg, checkpoint, **self._options)
            self._backbone = None if backbone_names(trainable_state_dict(model)) else model.backbone

    # -- prompts ------------------------------------------------------------------------------------------------------
    @property
    def prompts(self) -> list[str]:
        """Names of the loaded prompts; ``'default'`` for those of a single file."""
        return list(self._sets)

    def add_prompts(self, name: str, checkpoint: str | Path) -> None:
        """Load the prompts of a checkpoint on the existing CLIP, under a name. Memory grows only by the prompts.

        Raises:
            ValueError: The name is in use, or the existing CLIP was changed by its own checkpoint.
            CheckpointError: The checkpoint can't be read, is for another CLIP, or changes the backbone's own weights.
        """
        if name in self._sets:
            raise ValueError(f'prompts named {name!r} are already loaded')
        if self._backbone is None:
            raise ValueError(f'the method {self.cfg.get("method")} changes CLIP itself: other prompts cannot be added')
        model, cfg = shared_backbone(self._backbone, checkpoint, self.cfg)
        with building(f'the model of {checkpoint}'):
            self._sets[name] = PromptSet(model, cfg, checkpoint, **self._options)

    def remove_prompts(self, name: str) -> None:
        """Unload prompts."""
        self.prompt_set(name).loader.close()
        del self._sets[name]

    def prompt_set(self, name: str | None = None) -> PromptSet:
        """Return a loaded prompt set by its name, which is required if several are loaded (ValueError)."""
        if name is None and len(self._sets) == 1:
            return next(iter(self._sets.values()))
        if name not in self._sets:
            what = 'several prompts are loaded' if name is None else f'no prompts named {name!r}'
            raise ValueError(f'{what}: choose one of {", ".join(self._sets) or "(none)"}')
        return self._sets[name]

    # -- embeddings ---------------------------------------------------------------------------------------------------
    def encode_text(self, texts: str | Sequence[str], prompts: str | None = None) -> np.ndarray:
        """Encode texts to float32 [n, D], unit norm. Long ones are truncated, as in evaluation.

        Warns about words that are not in the model's vocabulary (:class:`UnknownWordsWarning`).

        Args:
            texts (str | Sequence[str]): n texts.
            prompts (str, optional): Name of the prompts; required if several are loaded.
        """
        return self._encode_text(texts, prompts)

    def unknown_words(self, texts: str | Sequence[str], prompts: str | None = None) -> list[str]:
        """Return the words of texts that are not in the model's vocabulary. The model can't distinguish them.

        They are in text order, without duplicates; none with CLIP's own vocabulary.
        """
        return find(self.prompt_set(prompts).tokenizer, texts)

    def keep_text(self, texts: str | Sequence[str], prompts: str | None = None) -> np.ndarray:
        """Encode texts to the head's text features, [n, ...] float32; same as :meth:`encode_text` for a cosine head."""
        return self._encode_text(texts, prompts, keep=True)

    def _encode_text(self, texts: str | Sequence[str], prompts: str | None, keep: bool = False) -> np.ndarray:
        """Encode texts; called only by public methods, so that the warning names the line that called them."""
        chosen, texts = self.prompt_set(prompts), [texts] if isinstance(texts, str) else list(texts)
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f'a text must be a str, got {text!r:.80}')
        if unknown := find(chosen.tokenizer, texts):
            warnings.warn(describe(unknown), UnknownWordsWarning, stacklevel=3)
        return (chosen.keep_text if keep else chosen.encode_text)(texts)

    def encode_video(self, videos: _Videos, prompts: str | None = None, progress: bool = False) -> np.ndarray:
        """Encode whole videos to float32 [n, D], unit norm.

        Args:
            videos (Sequence): n files or arrays of frames, uint8 [f, H, W, 3] RGB each; or a single one.
            prompts (str, optional): Name of the prompts; required if several are loaded.
            progress (bool): Show a progress bar. Defaults to False.

        Raises:
            VideoDecodeError: A file can't be read; the message names it.
        """
        return self.keep_video(videos, prompts, progress)[:, :self.prompt_set(prompts).settings['dim']]

    def keep_video(self, videos: _Videos, prompts: str | None = None, progress: bool = False) -> np.ndarray:
        """Encode whole videos, as :meth:`encode_video` does, to the rows that an index stores.

        These are vectors, float32 [n, D], for a cosine head; otherwise each is followed by the features that the head
        scores videos by, [n, D + kept].
        """
        chosen = self.prompt_set(prompts)
        one = isinstance(videos, (str, Path)) or (isinstance(videos, np.ndarray) and videos.ndim == 4)
        return self._encode([videos] if one else list(videos), chosen, lambda video: (
            chosen.loader.load(str(video)) if isinstance(video, (str, Path)) else chosen.loader.load_frames(video)),
            progress)

    def encode_image(self, images: _Videos, prompts: str | None = None) -> np.ndarray:
        """Encode images as still videos: n files or arrays, uint8 [H, W, 3] RGB -> float32 [n, D]."""
        chosen = self.prompt_set(prompts)
        one = isinstance(images, (str, Path)) or (isinstance(images, np.ndarray) and images.ndim == 3)
        rows = self._encode([images] if one else list(images), chosen, chosen.loader.load_image)
        return rows[:, :chosen.settings['dim']]

    def _encode(self, items: list, chosen: PromptSet, load: Callable, progress: bool = False) -> np.ndarray:
        width = chosen.settings['dim'] + chosen.settings.get('kept', 0)
        vectors, frames, num_frames = [np.empty((0, width), np.float32)], [], []
        with progress_bar(progress, 'encoding') as report, ThreadPoolExecutor(self.num_workers) as pool:
            for done, (_, loaded) in enumerate(map_ahead(pool, load, items, 2 * self.num_workers), 1):
                frames, num_frames = [*frames, loaded[0]], [*num_frames, *loaded[1]]
                if len(frames) == self.batch_size or done == len(items):
                    vectors.append(chosen.encode_frames(torch.cat(frames), num_frames))
                    frames, num_frames = [], []
                report(done, len(items))
        return np.concatenate(vectors)
