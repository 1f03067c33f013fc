"""Small random models of every kind of tower that open_clip builds, as architectures for it.

Towers of timm are timm's own entry points with smaller numbers, so that every other option is that of the real model.
"""
import copy

import torch
from timm.layers import HybridEmbed
from timm.models import model_entrypoint, register_model
from timm.models.vision_transformer_hybrid import ConvStem
from timm.models.vitamin import VitCfg
from torch import Tensor, nn

from tests.clips import EOT, random_tokens, roughen

LENGTH = 24  # tokens of a caption


def _small(entry: str, name: str, **options) -> str:
    """Register a smaller model of timm under a name of its own."""

    def build(pretrained=False, **kwargs):
        return model_entrypoint(entry)(pretrained, **{**options, **kwargs})

    build.__name__ = name
    return register_model(build).__name__


def _mobile_stem(**kwargs) -> nn.Module:
    stem = ConvStem(channels=(12, 12, 48), stride=(4, 2, 2), kernel_size=(4, 2, 2), padding=0, act_layer=nn.GELU)
    return HybridEmbed(backbone=stem, proj=False, **kwargs)


_WIDTH = dict(embed_dim=48, depth=3, num_heads=3)
_MODELS = dict(
    siglip=_small('vit_base_patch16_siglip_224', 'small_siglip', img_size=32, **_WIDTH),
    siglip2=_small('vit_so400m_patch16_siglip_256', 'small_siglip_so', img_size=32, **_WIDTH),
    vitamin=_small('vitamin_base_224', 'small_vitamin', img_size=64, **_WIDTH,
                   embed_cfg=VitCfg(embed_dim=(8, 16, 48), depths=(2, 2, 1), stem_width=8, head_type='1d')),
    vitamin_xl=_small('vitamin_xlarge_256', 'small_vitamin_xl', img_size=64, **_WIDTH,
                      embed_cfg=VitCfg(embed_dim=(8, 16, 48), depths=(1, 1, 1), stem_width=8, head_type='1d')),
    mobile=_small('vit_base_mci_224', 'small_mobile', img_size=(32, 48), embed_layer=_mobile_stem, **_WIDTH),
    mobile_l=_small('vit_large_patch14_clip_224', 'small_mobile_l', img_size=32, patch_size=8, **_WIDTH),
    gap=_small('vit_medium_patch16_gap_256', 'small_gap', img_size=32, patch_size=8, **_WIDTH),
    pe=_small('vit_pe_core_base_patch16_224', 'small_pe', img_size=(32, 24), patch_size=8, attn_pool_num_heads=4,
              **_WIDTH),
    pe_big=_small('vit_pe_core_gigantic_patch14_448', 'small_pe_big', img_size=(24, 32), patch_size=8,
                  attn_pool_num_heads=4, **_WIDTH),
    eva02=_small('eva02_base_patch16_clip_224', 'small_eva02', img_size=(24, 32), patch_size=8, **_WIDTH),
    eva01=_small('eva_giant_patch14_224', 'small_eva01', img_size=32, patch_size=8, **_WIDTH),
    eva02_e=_small('eva02_enormous_patch14_clip_224', 'small_eva02_e', img_size=32, patch_size=8, **_WIDTH),
    convnext=_small('convnext_base', 'small_convnext', depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)),
    fastvit=_small('fastvit_mci0', 'small_fastvit', layers=(1, 1, 1, 1), embed_dims=(8, 16, 32, 64)),
    swin=_small('swin_base_patch4_window7_224', 'small_swin', img_size=56, embed_dim=16, depths=(2, 2),
                num_heads=(2, 4)),
    relpos=_small('vit_relpos_medium_patch16_cls_224', 'small_relpos', img_size=32, patch_size=8, rel_pos_dim=16,
                  **_WIDTH),
)


def _timm(model: str, image_size: int | tuple[int, int] = 32, pool: str = '', proj: str | None = None,
          **options) -> dict:
    return dict(image_size=image_size, timm_model_name=_MODELS[model], timm_model_pretrained=False, timm_pool=pool,
                timm_proj=proj, **options)


def _arch(vision: dict, text: dict, **options) -> dict:
    return dict(embed_dim=40, vision_cfg=vision, text_cfg=text, **options)


_VIT = dict(image_size=32, patch_size=8, width=48, head_width=16, layers=3)
_CLIPA_VIT = dict(_VIT, no_ln_pre=True, pool_type='avg', final_ln_after_pool=True)
_COCA_VIT = dict(_VIT, attentional_pool=True, attn_pooler_heads=4, attn_pooler_queries=5, output_tokens=True)
_CUSTOM = dict(qk_norm=True, scale_heads=True, scale_attn_inner=True, scale_attn=True, scale_fc=True)
_CLIP_TEXT = dict(context_length=LENGTH, vocab_size=EOT + 1, width=36, heads=3, layers=3)
_UNCAUSAL = dict(_CLIP_TEXT, no_causal_mask=True)
_SIGLIP_TEXT = dict(_UNCAUSAL, pool_type='last', norm_kwargs=dict(eps=1e-6))
_COCA_TEXT = dict(_CLIP_TEXT, context_length=LENGTH - 1, embed_cls=True, output_tokens=True)
_DECODER = dict(context_length=LENGTH - 1, vocab_size=EOT + 1, width=36, heads=3, layers=2, attn_pooler_heads=3)

# both towers consist of blocks that prompts can be put between
BLOCKS: dict[str, dict] = {
    'CLIP': _arch(_VIT, _CLIP_TEXT, quick_gelu=True),
    'worldwide': _arch(_VIT, dict(_CLIP_TEXT, pool_type='eos', eos_id=1)),
    'CLIPA': _arch(_CLIPA_VIT, dict(_UNCAUSAL, pool_type='last', hf_tokenizer_name='bert-base-uncased',
                                    tokenizer_kwargs=dict(strip_sep_token=True))),
    'custom-blocks': _arch(dict(_VIT, ls_init_value=0.3, **_CUSTOM), dict(_CLIP_TEXT, ls_init_value=0.3, **_CUSTOM)),
    'CoCa': _arch(_COCA_VIT, _COCA_TEXT, multimodal_cfg=_DECODER, custom_text=True),
    'CoCa-base': _arch(dict(_VIT, output_tokens=True), _COCA_TEXT, multimodal_cfg=_DECODER, custom_text=True),
    'SigLIP': dict(_arch(_timm('siglip', pool='map', proj='none'), dict(_SIGLIP_TEXT, proj_bias=True)),
                   embed_dim=48, custom_text=True, init_logit_bias=-10),
    'SigLIP-i18n': dict(_arch(_timm('siglip2', pool='map', proj='none'),
                              dict(_SIGLIP_TEXT, width=48, mlp_ratio=3.7362, proj_type='none')),
                        embed_dim=48, custom_text=True, init_logit_bias=-10),
    'SigLIP2': dict(_arch(_timm('siglip2', pool='map', proj='none'),
                          dict(_SIGLIP_TEXT, mlp_ratio=3.7362, proj_bias=True, act_kwargs=dict(approximate='tanh'))),
                    embed_dim=48, custom_text=True, init_logit_bias=-10),
    'ViTamin': _arch(_timm('vitamin', 64, proj='linear', timm_drop=0.0, timm_drop_path=0.1), _CLIP_TEXT,
                     custom_text=True),
    'ViTamin-XL': _arch(_timm('vitamin_xl', 64, proj='linear', timm_drop=0.0, timm_drop_path=0.1), _CLIP_TEXT,
                        custom_text=True),
    'MobileCLIP2-B': _arch(_timm('mobile', (32, 48), pool='token', timm_drop=0.0, timm_drop_path=0.0),
                           dict(_CLIP_TEXT, no_causal_mask=False), custom_text=True),
    'MobileCLIP2-L': _arch(_timm('mobile_l', pool='token', timm_drop=0.0, timm_drop_path=0.1), _UNCAUSAL,
                           custom_text=True),
    'gap': _arch(_timm('gap', proj='linear'), _CLIP_TEXT),
    'PE-Core': _arch(_timm('pe', (32, 24), pool='map'), _CLIP_TEXT, custom_text=True),
    'PE-Core-bigG': _arch(_timm('pe_big', (24, 32), pool='map'), _CLIP_TEXT, custom_text=True),
    'EVA02': _arch(_timm('eva02', (24, 32), pool='token'), _CLIP_TEXT, custom_text=True),
    'EVA01': _arch(_timm('eva01', pool='token'), _CLIP_TEXT, custom_text=True),
    'EVA02-E': _arch(_timm('eva02_e', pool='token'), _CLIP_TEXT, custom_text=True),
}
# vision towers that run as a whole
WHOLE: dict[str, dict] = {
    'ResNet': _arch(dict(image_size=64, layers=[1, 1, 1, 1], width=8, patch_size=None), _CLIP_TEXT, quick_gelu=True),
    'ConvNeXt': _arch(_timm('convnext', 64, proj='linear', timm_drop=0.0, timm_drop_path=0.1), _CLIP_TEXT),
    'ConvNeXt-mlp': _arch(_timm('convnext', 64, proj='mlp', timm_drop=0.0, timm_drop_path=0.1), _CLIP_TEXT),
    'MobileCLIP-S': _arch(_timm('fastvit', 64, pool='avg', timm_drop=0.0, timm_drop_path=0.0), _UNCAUSAL,
                          custom_text=True),
    'Swin': _arch(_timm('swin', 56, proj='linear'), _CLIP_TEXT),
    'relpos': _arch(_timm('relpos', proj='linear'), _CLIP_TEXT),
}
KINDS = {**BLOCKS, **WHOLE}


def plain_model(arch: dict, seed: int = 0, dtype: torch.dtype = torch.float32, rough: float = 0.1) -> nn.Module:
    """open_clip's own model in eval mode, without CoCa's decoder; no bias is 0, no factor and no variance 1."""
    from open_clip.model import CLIP, CustomTextCLIP
    arch = copy.deepcopy(arch)
    arch.pop('multimodal_cfg', None)
    for tower in ('vision_cfg', 'text_cfg'):
        arch[tower].pop('output_tokens', None)  # for the decoder
    torch.manual_seed(seed)
    model = (CustomTextCLIP if arch.pop('custom_text', False) else CLIP)(**arch)
    roughen(model, rough)
    roughen_statistics(model, rough)
    return model.to(dtype).eval()


@torch.no_grad()
def roughen_statistics(module: nn.Module, std: float) -> None:
    """Add noise to the statistics of every batch norm."""
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.running_mean.add_(torch.randn_like(norm.running_mean) * std)
            norm.running_var.mul_((torch.randn_like(norm.running_var) * std).exp())


def frames_of(arch: dict, videos: int, frames: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Noise over four colored quarters, of an architecture's image size, [B, F, 3, H, W]."""
    size = arch['vision_cfg']['image_size']
    height, width = (size, size) if isinstance(size, int) else size
    generator = torch.Generator().manual_seed(seed)
    noise, colors = (torch.randn(videos, frames, 3, *shape, generator=generator) for shape in ((height, width), (2, 2)))
    colors = colors.repeat_interleave(height // 2, dim=3).repeat_interleave(width // 2, dim=4)
    return (noise + 2 * colors).to(dtype)


def captions_of(arch: dict, lengths: list[int], seed: int = 2) -> Tensor:
    """Captions of so many tokens as an architecture's tokenizer would give them, [n, context length]."""
    text = arch['text_cfg']
    tokens = random_tokens(lengths, text['context_length'], seed=seed)
    end = end_of(arch)
    if end != EOT:
        tokens[tokens == end] = end + 2
        for row, length in zip(tokens, lengths):
            row[length - 1] = end
            if text.get('pool_type') == 'last':  # filled up with it
                row[length:] = end
    return tokens


def end_of(arch: dict) -> int:
    """Token that ends captions: the largest id (CLIP), that of 'eos', 1 (SigLIP), or 0 where it is stripped (CLIPA)."""
    text = arch['text_cfg']
    if text.get('pool_type') == 'last':
        return 0 if (text.get('tokenizer_kwargs') or {}).get('strip_sep_token') else 1
    return text['eos_id'] if text.get('pool_type') == 'eos' else EOT
