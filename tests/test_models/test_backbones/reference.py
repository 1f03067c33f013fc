"""What VoP computes, written out from the paper: one frame or one caption at a time, from a state dict, in plain torch.

No module of open_clip, no fused attention, no batch; tokens are kept in lists under their names.
"""
import torch
from torch.nn import functional as F


def norm(x, state, name):
    x = x - x.mean(dim=-1, keepdim=True)
    return x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * state[f'{name}.weight'] + state[f'{name}.bias']


def linear(x, state, name):
    return x @ state[f'{name}.weight'].T + state[f'{name}.bias']


def block(x, state, name, heads, causal):
    """A residual block with quick-GELU. [T, C] -> [T, C]"""
    y = norm(x, state, f'{name}.ln_1')
    qkv = (y @ state[f'{name}.attn.in_proj_weight'].T + state[f'{name}.attn.in_proj_bias']).chunk(3, dim=1)
    out = []
    for q, k, v in zip(*(t.chunk(heads, dim=1) for t in qkv)):
        scores = q @ k.T / q.shape[1]**0.5  # [T, T]
        if causal:
            scores = scores + torch.full_like(scores, float('-inf')).triu(1)
        out.append(scores.softmax(dim=1) @ v)
    x = x + linear(torch.cat(out, dim=1), state, f'{name}.attn.out_proj')
    y = linear(norm(x, state, f'{name}.ln_2'), state, f'{name}.mlp.c_fc')
    return x + linear(y * torch.sigmoid(1.702 * y), state, f'{name}.mlp.c_proj')


def depth(state, prefix):
    return 1 + max(int(k[len(prefix):].split('.')[0]) for k in state if k.startswith(prefix))


def frame_embedding(state, frame, prompts, heads):
    """Embedding of a frame [3, H, W]; ``prompts``: layer -> [P, C]."""
    kernel = state['visual.conv1.weight']  # [C, 3, p, p]
    size = kernel.shape[-1]
    patches = [(kernel * frame[None, :, i:i + size, j:j + size]).sum(dim=(1, 2, 3))
               for i in range(0, frame.shape[1], size) for j in range(0, frame.shape[2], size)]
    kept = torch.stack([state['visual.class_embedding'], *patches]) + state['visual.positional_embedding']
    for layer in range(depth(state, 'visual.transformer.resblocks.')):
        own = prompts.get(layer, kept[:0])
        x = torch.cat([kept[:1], own, kept[1:]])
        if layer == 0:
            x = norm(x, state, 'visual.ln_pre')
        x = block(x, state, f'visual.transformer.resblocks.{layer}', heads, causal=False)
        kept = torch.cat([x[:1], x[1 + len(own):]])
    return F.normalize(norm(kept[0], state, 'visual.ln_post') @ state['visual.proj'], dim=0)


def text_embedding(state, ids, prefix, suffix, heads, past_eot=False):
    """Embedding of a caption, a list of ids; ``prefix``, ``suffix``: layer -> [P, C].

    With ``past_eot`` it is read where the published code reads it: as many positions behind as the suffix is long.
    """
    last = len(ids) - 1
    words = {i: state['token_embedding.weight'][token] for i, token in enumerate(ids)}
    for layer in range(depth(state, 'transformer.resblocks.')):
        tokens = [(0, words[0])]
        tokens += [('prefix', p) for p in prefix.get(layer, ())]
        tokens += [(i, words[i]) for i in range(1, last)]
        tokens += [('suffix', p) for p in suffix.get(layer, ())]
        tokens += [(last, words[last])]
        names, x = [name for name, _ in tokens], torch.stack([value for _, value in tokens])
        if layer == 0:
            x = x + state['positional_embedding'][:len(x)]
        x = block(x, state, f'transformer.resblocks.{layer}', heads, causal=True)
        words = {name: value for name, value in zip(names, x) if isinstance(name, int)}
    if past_eot:
        x = x[ids.index(max(ids)) + names.count('prefix') + names.count('suffix')]
    else:
        x = words[ids.index(max(ids))]
    return F.normalize(norm(x, state, 'ln_final') @ state['text_projection'], dim=0)
