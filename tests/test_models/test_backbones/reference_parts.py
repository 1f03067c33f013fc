"""Parts of transformer blocks of every kind, written out in plain torch from a state dict and a tower's few numbers."""
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

State = Mapping[str, Tensor]


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def gelu_tanh(x: Tensor) -> Tensor:
    return x * (1 + torch.tanh((2 / math.pi)**0.5 * (x + 0.044715 * x**3))) / 2


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


@dataclass(frozen=True)
class Rotary:
    """How rotary positions count: from ``offset``, stretched to a grid of ``reference`` rows and columns."""
    reference: tuple[int, int]
    offset: int = 0
    column_first: bool = False


@dataclass(frozen=True)
class Vision:
    """Numbers of a vision tower that its state dict doesn't tell.

    ``read``: 'cls', 'mean' (of the patches), 'latent' (attention pooling, over CLS as well if there is one) or
    'query' (CoCa's).
    """
    heads: int = 3
    read: str = 'cls'
    act: Callable = gelu
    eps: float = 1e-5
    pool_heads: int = 3
    rotary: Rotary | None = None
    post_norm: bool = False
    norm_after_mean: bool = False  # in open_clip's own towers; timm's norms tell by their names


@dataclass(frozen=True)
class Text:
    """Numbers of a text tower. ``read``: 'largest' (id), 'last' (position), 'own' (embedding) or the id to read at."""
    heads: int = 3
    read: str | int = 'largest'
    act: Callable = gelu
    eps: float = 1e-5
    causal: bool = True
    pad_id: int = 0


def norm(x: Tensor, state: State, name: str, eps: float) -> Tensor:
    """Layer norm over the last dimension; none if the tower has none of that name."""
    if f'{name}.weight' not in state:
        return x
    x = x - x.mean(dim=-1, keepdim=True)
    return x / (x.square().mean(dim=-1, keepdim=True) + eps).sqrt() * state[f'{name}.weight'] + state[f'{name}.bias']


def linear(x: Tensor, state: State, name: str) -> Tensor:
    x = x @ state[f'{name}.weight'].T
    return x + state[f'{name}.bias'] if f'{name}.bias' in state else x


def scaled(x: Tensor, state: State, *names: str) -> Tensor:
    """Layer scale, under one of these names if at all."""
    for name in names:
        if name in state:
            return x * state[name]
    return x


def attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None = None) -> Tensor:
    """One head, [Q, c], [K, c], [K, c] -> [Q, c]; ``allowed``: [Q, K] bool."""
    scores = q @ k.T / q.shape[1]**0.5
    if allowed is not None:
        scores = torch.where(allowed, scores, -torch.inf)
    scores = (scores - scores.max(dim=1, keepdim=True).values).exp()
    return scores / scores.sum(dim=1, keepdim=True) @ v


@functools.cache
def angles(place: tuple[int, int] | None, grid: tuple[int, int], rotary: Rotary, pairs: int) -> Tensor:
    """Angles by which a token in a row and column turns its pairs of channels; ``None``: no position, no turn.

    They are float32, as such models keep them.
    """
    if place is None:
        return torch.zeros(pairs)
    bands = 1 / 10000**(torch.arange(pairs // 2, dtype=torch.float32) / (pairs // 2))
    along = [torch.tensor(float(at + rotary.offset)) / size * reference
             for at, size, reference in zip(place, grid, rotary.reference)]
    if rotary.column_first:
        along.reverse()
    return torch.cat([position * bands for position in along])


def rotated(x: Tensor, places: list[tuple[int, int] | None], grid: tuple[int, int], rotary: Rotary) -> Tensor:
    """Turn the channels of tokens by their places, [T, c] -> [T, c]."""
    turns = torch.stack([angles(place, grid, rotary, x.shape[1] // 2) for place in places])
    sin, cos = turns.sin().to(x.dtype), turns.cos().to(x.dtype)
    even, odd = x[:, 0::2], x[:, 1::2]
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=2).flatten(1)


def projections(x: Tensor, state: State, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of all heads, [T, C] each."""
    if f'{name}.q_proj.weight' in state:
        return tuple(linear(x, state, f'{name}.{p}_proj') for p in 'qkv')
    if f'{name}.in_proj_weight' in state:
        return (x @ state[f'{name}.in_proj_weight'].T + state[f'{name}.in_proj_bias']).chunk(3, dim=1)
    q, k, v = linear(x, state, f'{name}.qkv').chunk(3, dim=1)
    if f'{name}.q_bias' in state:
        return q + state[f'{name}.q_bias'], k, v + state[f'{name}.v_bias']
    return q, k, v


def self_attention(x, state, name, tower, allowed, places, grid) -> Tensor:
    heads = []
    for head, (q, k, v) in enumerate(zip(*(t.chunk(tower.heads, dim=1) for t in projections(x, state, name)))):
        q, k = norm(q, state, f'{name}.ln_q', tower.eps), norm(k, state, f'{name}.ln_k', tower.eps)
        if getattr(tower, 'rotary', None):
            q, k = (rotated(t, places, grid, tower.rotary) for t in (q, k))
        y = attend(q, k, v, allowed)
        heads.append(y * state[f'{name}.head_scale'][head] if f'{name}.head_scale' in state else y)
    y = torch.cat(heads, dim=1)
    y = norm(norm(y, state, f'{name}.ln_inner', tower.eps), state, f'{name}.norm', tower.eps)
    return linear(y, state, f'{name}.out_proj' if f'{name}.out_proj.weight' in state else f'{name}.proj')


def mlp(x, state, name, tower) -> Tensor:
    if f'{name}.c_fc.weight' in state:
        return linear(norm(tower.act(linear(x, state, f'{name}.c_fc')), state, f'{name}.ln', tower.eps), state,
                      f'{name}.c_proj')
    if f'{name}.w0.weight' in state:  # GeGLU
        x = norm(x, state, f'{name}.norm', 1e-6)
        return linear(gelu(linear(x, state, f'{name}.w0')) * linear(x, state, f'{name}.w1'), state, f'{name}.w2')
    if f'{name}.fc1_g.weight' in state:  # SwiGLU
        gate = linear(x, state, f'{name}.fc1_g')
        x = gate * torch.sigmoid(gate) * linear(x, state, f'{name}.fc1_x')
        return linear(norm(x, state, f'{name}.norm', tower.eps), state, f'{name}.fc2')
    return linear(tower.act(linear(x, state, f'{name}.fc1')), state, f'{name}.fc2')


def block(x, state, name, tower, allowed=None, places=None, grid=None) -> Tensor:
    """A residual block, [T, C] -> [T, C]. ``places``: row and column of each token, for rotary positions."""
    first, second = (f'{name}.ln_1', f'{name}.ln_2') if f'{name}.ln_1.weight' in state else (f'{name}.norm1',
                                                                                             f'{name}.norm2')
    if getattr(tower, 'post_norm', False):
        y = self_attention(x, state, f'{name}.attn', tower, allowed, places, grid)
        x = x + norm(y, state, first, tower.eps)
        return x + norm(mlp(x, state, f'{name}.mlp', tower), state, second, tower.eps)
    y = self_attention(norm(x, state, first, tower.eps), state, f'{name}.attn', tower, allowed, places, grid)
    y = norm(y, state, f'{name}.ln_attn', tower.eps)
    x = x + scaled(y, state, f'{name}.ls_1.gamma', f'{name}.ls1.gamma', f'{name}.gamma_1')
    y = mlp(norm(x, state, second, tower.eps), state, f'{name}.mlp', tower)
    return x + scaled(y, state, f'{name}.ls_2.gamma', f'{name}.ls2.gamma', f'{name}.gamma_2')


def depth(state: State, prefix: str) -> int:
    return 1 + max(int(k[len(prefix):].split('.')[0]) for k in state if k.startswith(prefix))
