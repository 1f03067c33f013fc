"""Numbers of the small models of tests.backbone_kinds that the reference needs beside their state dicts."""
from .reference_parts import Rotary, Text, Vision, gelu_tanh, quick_gelu

_CLIP_TEXT, _LAST = Text(), Text(read='last', causal=False, eps=1e-6)
NUMBERS: dict[str, tuple[Vision, Text]] = {
    'CLIP': (Vision(act=quick_gelu), Text(act=quick_gelu)),
    'worldwide': (Vision(), Text(read=1)),
    'CLIPA': (Vision(read='mean', norm_after_mean=True), Text(read='last', causal=False)),
    'custom-blocks': (Vision(), _CLIP_TEXT),
    'CoCa': (Vision(read='query', pool_heads=4), Text(read='own')),
    'CoCa-base': (Vision(), Text(read='own')),
    'SigLIP': (Vision(read='latent', eps=1e-6), _LAST),
    'SigLIP-i18n': (Vision(read='latent', eps=1e-6, act=gelu_tanh), _LAST),
    'SigLIP2': (Vision(read='latent', eps=1e-6, act=gelu_tanh),
                Text(read='last', causal=False, eps=1e-6, act=gelu_tanh)),
    'ViTamin': (Vision(read='mean', eps=1e-6), _CLIP_TEXT),
    'ViTamin-XL': (Vision(read='mean', eps=1e-6), _CLIP_TEXT),
    'MobileCLIP2-B': (Vision(eps=1e-6), _CLIP_TEXT),
    'MobileCLIP2-L': (Vision(), Text(causal=False)),
    'gap': (Vision(read='mean', eps=1e-6), _CLIP_TEXT),
    'PE-Core': (Vision(read='latent', pool_heads=4, rotary=Rotary((14, 14), offset=1, column_first=True)), _CLIP_TEXT),
    'PE-Core-bigG': (Vision(read='latent', pool_heads=4, rotary=Rotary((32, 32), column_first=True)), _CLIP_TEXT),
    'EVA02': (Vision(eps=1e-6, rotary=Rotary((16, 16))), _CLIP_TEXT),
    'EVA01': (Vision(eps=1e-6), _CLIP_TEXT),
    'EVA02-E': (Vision(eps=1e-6, post_norm=True), _CLIP_TEXT),
}
