"""Text-video retriever: a backbone, its two towers with prompts, a head and a loss."""
from collections.abc import Sequence

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn import functional as F

from vop_mm.registry import HEADS, MODELS, PROMPTS, TUNING, UPDATES
from vop_mm.utils.dist import gather_with_grad, world_size

from ..backbones import Backbone, TextTower, VisionTower
from ..tuning import frozen_names


@MODELS.register_module()
class TextVideoRetriever(BaseModel):
    """Text-video retrieval model with a backbone of CLIP's kind.

    It implements no method itself: a method is the combination of parts in a config.

    Args:
        backbone (dict | Backbone): The backbone: ``dict(type='OpenCLIP', arch=..., weights=...)``, or one that several
            retrievers share.
        frame_prompts (Sequence[dict], optional): Prompt providers of the vision tower's layers below ``video_from``, in
            the order of their tokens; a provider's ``layers`` overrides its layers. None, as in configs older than
            scopes: ``video_prompts`` are inserted in all layers. Defaults to None.
        video_prompts (Sequence[dict]): Prompt providers of the layers from ``video_from`` on, which see whole videos.
        cls_updates (Sequence[dict]): Modules that change the frames' CLS tokens between layers.
        text_prompts (Sequence[dict]): Prompt providers of the text tower.
        text_suffix_prompts (Sequence[dict]): Providers before the text's last position, for published checkpoints.
        published_eot (bool): Position at which the text is read; see :class:`TextTower`. Defaults to False.
        num_frames (int): Number of frames of a video (F). Defaults to 12.
        video_from (int, optional): First layer of the vision tower that sees whole videos (VoP^F, K_s in the paper);
            None: every layer sees single frames. Defaults to None.
        recompute (bool): Use activation checkpointing in both towers. Defaults to False.
        tuning (dict): Config of the tuning strategy. Defaults to ``dict(type='PromptTuning')``.
        head (dict): Config of the head, from the registry ``HEADS``. Defaults to ``dict(type='MeanPoolSimilarity')``.
        loss (dict): Config of the loss. Defaults to ``dict(type='SymmetricContrastiveLoss')``.
        data_preprocessor (dict): Config of the data preprocessor. Defaults to ``dict(type='VideoTextPreprocessor')``.

    Raises:
        ValueError: ``video_from`` is not in the tower, there are prompts whose scope has no layer or which the backbone
            can't have, or both backbone and loss have a bias.
    """

    def __init__(self,
                 backbone: dict | Backbone,
                 frame_prompts: Sequence[dict] | None = None,
                 video_prompts: Sequence[dict] = (),
                 cls_updates: Sequence[dict] = (),
                 text_prompts: Sequence[dict] = (),
                 text_suffix_prompts: Sequence[dict] = (),
                 published_eot: bool = False,
                 num_frames: int = 12,
                 video_from: int | None = None,
                 recompute: bool = False,
                 tuning: dict = dict(type='PromptTuning'),
                 head: dict = dict(type='MeanPoolSimilarity'),
                 loss: dict = dict(type='SymmetricContrastiveLoss'),
                 data_preprocessor: dict = dict(type='VideoTextPreprocessor')) -> None:
        super().__init__(data_preprocessor=MODELS.build(data_preprocessor))
        self.backbone = backbone if isinstance(backbone, nn.Module) else MODELS.build(backbone)
        if not isinstance(self.backbone, Backbone):
            raise TypeError(f'{type(self.backbone).__name__} is no Backbone')
        self.backbone.take_fingerprint()  # before anything is added or trained
        self.data_preprocessor.prepare(self.backbone)
        for tower, keys in (('vision', dict(frame_prompts=frame_prompts, video_prompts=video_prompts,
                                            cls_updates=cls_updates, video_from=video_from is not None)),
                            ('text', dict(text_prompts=text_prompts, text_suffix_prompts=text_suffix_prompts))):
            for key, given in keys.items():
                if given:
                    self.backbone.require_blocks(tower, key)
        if cls_updates and not self.backbone.reads_cls:
            raise ValueError(f'cls_updates need frames that are read from CLS tokens, which {self.backbone.arch_name} '
                             'does not do')
        if text_suffix_prompts and self.backbone.reads_last:
            raise ValueError('text_suffix_prompts stand before the last position, where captions of '
                             f'{self.backbone.arch_name} are read')
        depth = len(self.backbone.vision_blocks)
        video_from = depth if video_from is None else video_from
        if not 0 <= video_from <= depth:
            raise ValueError(f'video_from must be in 0..{depth}, the layers of this tower, got {video_from}')
        vision = dict(width=self.backbone.vision_width, depth=depth, num_frames=num_frames)
        prompts = []
        for key, providers, scope in (
                ('frame_prompts', frame_prompts or (), (0, video_from)),
                ('video_prompts', video_prompts, (0 if frame_prompts is None else video_from, depth))):
            if scope[0] == scope[1] and not all('layers' in p for p in providers):
                raise ValueError(f'{key} stand in no layer: of {depth} layers, those below video_from={video_from} see '
                                 'frames (frame_prompts), those from there on see videos (video_prompts)')
            prompts += [PROMPTS.build(p, default_args=dict(vision, layers=scope)) for p in providers]
        text = dict(width=self.backbone.text_width, depth=len(self.backbone.text_blocks), num_frames=1)
        self.vision_tower = VisionTower(prompts, [UPDATES.build(u, default_args=vision) for u in cls_updates],
                                        video_from=video_from, recompute=recompute, **vision)
        self.text_tower = TextTower([PROMPTS.build(p, default_args=text) for p in text_prompts],
                                    [PROMPTS.build(p, default_args=text) for p in text_suffix_prompts],
                                    published_eot=published_eot, context_length=self.backbone.context_length,
                                    recompute=recompute)
        self.head = HEADS.build(head)
        self.head.prepare(self.backbone)
        self.loss_module = MODELS.build(loss)
        if self.backbone.logit_bias is not None and isinstance(getattr(self.loss_module, 'bias', None), nn.Parameter):
            raise ValueError('this backbone has a logit bias of its own: leave out model.loss.bias')
        self.tuning = TUNING.build(tuning)
        self.tuning.apply(self)
        self.register_load_state_dict_post_hook(_frozen_may_be_missing)

    # -- embeddings -------------------------------------------------------------------------------------------------
    def encode_frames(self, frames: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Embed every frame.

        Args:
            frames (Tensor): Normalized pixels [B, F, 3, H, W].
            frame_mask (Tensor, optional): [B, F] bool, False where a frame is padding.

        Returns:
            Tensor: [B, F, D], unit norm per frame.
        """
        return F.normalize(self.vision_tower(self.backbone, frames, frame_mask), dim=-1)

    def encode_video(self, frames: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Embed each video as the single vector that an index uses.

        Args:
            frames (Tensor): Normalized pixels [B, F, 3, H, W].
            frame_mask (Tensor, optional): [B, F] bool, False where a frame is padding.

        Returns:
            Tensor: [B, D], unit norm.
        """
        return self.head.vector(self.keep_video(frames, frame_mask), frame_mask)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Embed captions.

        Args:
            tokens (Tensor): Token ids [n, L] int64; captions too long for the tower are cut, keeping end of text.

        Returns:
            Tensor: [n, D], unit norm.
        """
        if self.head.is_cosine:
            return self.keep_text(tokens)
        return F.normalize(self.text_tower(self.backbone, tokens)[0], dim=-1)

    # -- similarities -----------------------------------------------------------------------------------------------
    def keep_video(self, frames: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Return the features that the head keeps of videos, [B, ...]; arguments as in :meth:`encode_video`."""
        return self.head.video(self.vision_tower(self.backbone, frames, frame_mask), frame_mask)

    def keep_text(self, tokens: Tensor) -> Tensor:
        """Return the features that the head keeps of captions, [n, ...]; arguments as in :meth:`encode_text`."""
        return self.head.text(*self.text_tower(self.backbone, tokens, words=self.head.reads_words))

    def similarity(self, tokens: Tensor, frames: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Score every caption with every video, using the head.

        Args:
            tokens (Tensor): Token ids [T, L] int64.
            frames (Tensor): Normalized pixels [V, F, 3, H, W].
            frame_mask (Tensor, optional): [V, F] bool, False where a frame is padding.

        Returns:
            Tensor: [T, V], before the logit scale.
        """
        return self.head.similarity(self.keep_text(tokens), self.keep_video(frames, frame_mask), frame_mask)

    # -- MMEngine's three modes -------------------------------------------------------------------------------------
    def forward(self,
                frames: Tensor,
                tokens: Tensor,
                text_video: Tensor | None = None,
                video_index: Tensor | None = None,
                frame_mask: Tensor | None = None,
                data_samples: list | None = None,
                mode: str = 'tensor') -> dict | list:
        """Run a batch of :class:`VideoTextPreprocessor` in one of MMEngine's modes.

        Args:
            frames (Tensor): [B, F, 3, H, W], normalized.
            tokens (Tensor): [T, L] int64.
            text_video (Tensor, optional): Row of each text's video, [T] int64. None: text i belongs to video i.
            video_index (Tensor, optional): Number of each video in the dataset, [B] int64. None: all different.
            frame_mask (Tensor, optional): [B, F] bool, False where a frame is padding.
            data_samples (list, optional): The samples, which ``predict`` fills in.
            mode (str): ``'tensor'``, ``'predict'`` or ``'loss'``.

        Returns:
            dict | list: ``tensor``: ``dict(video_features [B, ...], text_features [T, ...])``, the features that the
            head keeps. ``loss``: ``dict(loss=scalar)``. ``predict``: the data samples with ``video_feature`` [...],
            ``text_features`` [n, ...] and, if there is a mask, ``frame_mask`` [F], on the CPU.
        """
        if mode not in ('tensor', 'predict', 'loss'):
            raise ValueError(f"mode must be 'tensor', 'predict' or 'loss', got {mode!r}")
        video_features = self.keep_video(frames, frame_mask)
        text_features = self.keep_text(tokens)
        if mode == 'tensor':
            return dict(video_features=video_features, text_features=text_features)
        if mode == 'loss':
            if self.head.is_cosine:
                frame_mask = None  # a pooled vector has no frames
            elif frame_mask is None:  # another rank may have a mask, and all ranks have to gather the same tensors
                frame_mask = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
            return self._loss(video_features, text_features, text_video, video_index, frame_mask)
        if text_video is None:
            text_video = torch.arange(len(frames), device=frames.device)
        # moved to the CPU per batch: per sample, the metric would synchronize with the device as many times
        videos, texts, rows = (x.cpu() for x in (video_features, text_features, text_video))
        counts = rows.bincount(minlength=len(frames)).tolist()
        for sample, video, own in zip(data_samples, videos, texts.split(counts), strict=True):
            sample.set_data(dict(video_feature=video, text_features=own))
        if frame_mask is not None:
            for sample, own in zip(data_samples, frame_mask.cpu(), strict=True):
                sample.set_data(dict(frame_mask=own))
        return data_samples

    def _dump_init_info(self) -> None:
        # MMEngine's version logs every tensor, including frozen ones
        pass

    def _loss(self, video_features: Tensor, text_features: Tensor, text_video: Tensor | None,
              video_index: Tensor | None, frame_mask: Tensor | None) -> dict:
        if video_index is None:
            if world_size() > 1:
                raise ValueError('video_index is needed to train on several processes')
            video_index = torch.arange(len(video_features), device=video_features.device)
        if text_video is not None:  # one row per pair
            video_features, video_index = video_features[text_video], video_index[text_video]
            frame_mask = None if frame_mask is None else frame_mask[text_video]
        text_features, video_features = gather_with_grad(text_features), gather_with_grad(video_features)
        mask = None if frame_mask is None else gather_with_grad(frame_mask.byte()).bool()
        # [N, N] for N pairs over all ranks
        logits = self._scale() * self.head.similarity(text_features, video_features, mask)
        if self.backbone.logit_bias is not None:
            logits = logits + self.backbone.logit_bias
        return dict(loss=self.loss_module(logits, gather_with_grad(video_index)))

    def _scale(self) -> Tensor:
        log, limit = self.backbone.logit_scale, self.backbone.max_logit_scale
        if limit is None:
            return log.exp()
        if not log.requires_grad:
            return log.clamp(max=limit).exp()
        # In place: a clamp in the graph has no gradient at its bound, which is where OpenAI's weights start.
        with torch.no_grad():
            log.clamp_(max=limit)
        return log.exp()


def _frozen_may_be_missing(model: TextVideoRetriever, incompatible_keys) -> None:
    """Allow checkpoints without the parameters that the backbone provides."""
    frozen = frozen_names(model)
    incompatible_keys.missing_keys[:] = [name for name in incompatible_keys.missing_keys if name not in frozen]
