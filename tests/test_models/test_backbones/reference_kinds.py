"""What VoP computes on every kind of tower with blocks, written out: from a state dict and a tower's few numbers.

One video or one caption at a time, in plain torch: no module of open_clip or timm, no fused attention, no batch; tokens
are kept in lists under their names. Parts of a tower that are optional are there where the state dict has them.
"""
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from .reference_parts import State, Text, Vision, attend, block, depth, gelu, linear, mlp, norm


# -- frames: stems -----------------------------------------------------------------------------------------------------
def patch_grid(state: State, frame: Tensor) -> Tensor:
    """A frame's patches without positions, [3, H, W] -> [rows, columns, C]."""
    trunk = 'visual.trunk.patch_embed.'
    if f'{trunk}backbone.stages.0.0.conv1_1x1.weight' in state:
        return vitamin_stem(state, f'{trunk}backbone', frame)
    if f'{trunk}backbone.0.conv.weight' in state:
        return mobile_stem(state, f'{trunk}backbone', frame)
    name = f'{trunk}proj' if f'{trunk}proj.weight' in state else 'visual.conv1'
    kernel, bias = state[f'{name}.weight'], state.get(f'{name}.bias', 0)  # [C, 3, p, p]
    size = kernel.shape[-1]
    return torch.stack([torch.stack([(kernel * frame[None, :, i:i + size, j:j + size]).sum(dim=(1, 2, 3)) + bias
                                     for j in range(0, frame.shape[2], size)])
                        for i in range(0, frame.shape[1], size)])


def convolved(x: Tensor, state: State, name: str, stride: int = 1, depthwise: bool = False, padding: int = 0) -> Tensor:
    """[C, H, W] -> [C', H', W']"""
    kernel = state[f'{name}.weight']
    return F.conv2d(x[None], kernel, state.get(f'{name}.bias'), stride, padding,
                    groups=len(kernel) if depthwise else 1)[0]


def channel_norm(x: Tensor, state: State, name: str) -> Tensor:
    return norm(x.permute(1, 2, 0), state, name, 1e-6).permute(2, 0, 1)


def vitamin_stem(state: State, name: str, frame: Tensor) -> Tensor:
    x = convolved(frame, state, f'{name}.stem.conv1', stride=2, padding=1)
    x = convolved(gelu(channel_norm(x, state, f'{name}.stem.norm1')), state, f'{name}.stem.conv2', padding=1)
    for stage in range(depth(state, f'{name}.stages.')):
        for layer in range(depth(state, f'{name}.stages.{stage}.')):
            part, stride = f'{name}.stages.{stage}.{layer}', 1 if layer else 2
            y = convolved(channel_norm(x, state, f'{part}.pre_norm'), state, f'{part}.conv1_1x1')
            y = convolved(gelu(y), state, f'{part}.conv2_kxk', stride, depthwise=True, padding=1)
            y = convolved(gelu(y), state, f'{part}.conv3_1x1')
            if stride == 2:
                x = F.avg_pool2d(x[None], 3, stride=2, padding=1, count_include_pad=False)[0]
            if f'{part}.shortcut.expand.weight' in state:
                x = convolved(x, state, f'{part}.shortcut.expand')
            x = x + y
    x = convolved(channel_norm(x, state, f'{name}.pool.norm'), state, f'{name}.pool.proj', stride=2, padding=1)
    return x.permute(1, 2, 0)


def mobile_stem(state: State, name: str, frame: Tensor) -> Tensor:
    x = frame
    for layer in range(3):
        part = f'{name}.{layer}'
        x = convolved(x, state, f'{part}.conv', stride=state[f'{part}.conv.weight'].shape[-1])
        if layer < 2:
            mean, var, weight, bias = (state[f'{part}.bn.{key}'][:, None, None]
                                       for key in ('running_mean', 'running_var', 'weight', 'bias'))
            x = gelu((x - mean) / (var + 1e-5).sqrt() * weight + bias)
    return x.permute(1, 2, 0)


# -- frames: towers ----------------------------------------------------------------------------------------------------
def names_of(state: State) -> tuple[str, str, str]:
    """Prefix of the blocks, names of the norm before them and of the norm after them."""
    if 'visual.trunk.blocks.0.norm1.weight' in state:
        return 'visual.trunk.blocks.', 'visual.trunk.norm_pre', 'visual.trunk.norm'
    return 'visual.transformer.resblocks.', 'visual.ln_pre', 'visual.ln_post'


def embed(state: State, frame: Tensor) -> tuple[Tensor | None, list[Tensor], tuple[int, int]]:
    """CLS (if any) and patches with positions, before any norm, and the number of rows and columns."""
    patches = patch_grid(state, frame)
    grid, patches = tuple(patches.shape[:2]), list(patches.flatten(0, 1))
    if 'visual.class_embedding' in state:
        cls, positions = state['visual.class_embedding'], state['visual.positional_embedding']
    else:
        cls, positions = state.get('visual.trunk.cls_token'), state.get('visual.trunk.pos_embed')
        cls, positions = None if cls is None else cls[0, 0], None if positions is None else positions[0]
    if positions is None:
        return cls, patches, grid
    if len(positions) > len(patches):
        cls, positions = cls + positions[0], positions[1:]
    return cls, [patch + position for patch, position in zip(patches, positions, strict=True)], grid


def pooled(state: State, tower: Vision, cls: Tensor | None, patches: Tensor) -> Tensor:
    """Read a frame from its own tokens of the last block, [C], [M, C] -> [D]."""
    own = 'visual.class_embedding' in state
    last = names_of(state)[2]
    x = patches if cls is None else torch.cat([cls[None], patches])
    if tower.read == 'query':
        x = norm(coca_pool(state, tower, x), state, last, tower.eps)
    elif tower.read == 'mean' and tower.norm_after_mean:
        x = norm(patches.mean(dim=0), state, last, tower.eps)
    else:
        x = norm(x, state, last, tower.eps)
        if tower.read == 'cls':
            x = x[0]
        elif tower.read == 'mean':
            x = x[0 if cls is None else 1:].mean(dim=0)
        else:
            x = latent_pool(state, tower, x)
        x = norm(x, state, 'visual.trunk.fc_norm', tower.eps)
    if own:
        return x @ state['visual.proj']
    for name in ('visual.trunk.head', 'visual.head.proj'):
        if f'{name}.weight' in state:
            x = linear(x, state, name)
    return x


def by_heads(query: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """One query [C] looks at tokens [T, C], in several heads."""
    parts = (t.chunk(heads, dim=1) for t in (query[None], keys, values))
    return torch.cat([attend(q, k, v)[0] for q, k, v in zip(*parts)])


def latent_pool(state: State, tower: Vision, x: Tensor) -> Tensor:
    name = 'visual.trunk.attn_pool'
    query = linear(state[f'{name}.latent'][0, 0], state, f'{name}.q')
    keys, values = linear(x, state, f'{name}.kv').chunk(2, dim=1)
    y = linear(by_heads(query, keys, values, tower.pool_heads), state, f'{name}.proj')
    return y + mlp(norm(y, state, f'{name}.norm', tower.eps), state, f'{name}.mlp', tower)


def coca_pool(state: State, tower: Vision, x: Tensor) -> Tensor:
    """The first of CoCa's queries, the only one that takes part in the embedding."""
    name = 'visual.attn_pool'
    x = norm(x, state, f'{name}.ln_k', tower.eps)
    query = norm(state[f'{name}.query'][0], state, f'{name}.ln_q', tower.eps)
    q, k, v = (t @ state[f'{name}.attn.{p}_proj_weight'].T + bias for t, p, bias in zip(
        (query, x, x), 'qkv', state[f'{name}.attn.in_proj_bias'].chunk(3)))
    return linear(by_heads(q, k, v, tower.pool_heads), state, f'{name}.attn.out_proj')


def video_tower(state: State, tower: Vision, frames: Tensor, prompts: Mapping = {}, video_from: int | None = None,
                frame_position: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """Run a video's frames through the tower.

    Args:
        state (State): Parameters and buffers under open_clip's names.
        tower (Vision): The tower's numbers.
        frames (Tensor): Normalized pixels [F, 3, H, W].
        prompts (Mapping): Layer -> tokens, or a function of the frames' summaries [F, C] that returns them. Tokens are
            those of every frame, [P, C], those of each frame, [F, P, C], or from ``video_from`` on those of the video,
            [P, C].
        video_from (int, optional): First layer that sees all frames at once. Defaults to none.
        frame_position (Tensor, optional): [F, C], added to the tokens of each frame before that layer.

    Returns:
        tuple[Tensor, list[Tensor]]: Embeddings of the frames [F, D], of unit length, and their summaries [F, C] at the
        input of every layer: CLS if frames are read from it alone, otherwise the mean of their patches.
    """
    blocks, first_norm, _ = names_of(state)
    kept, summaries = {}, []  # ('cls', frame) and ('patch', frame, row, column) -> token
    for j, frame in enumerate(frames):
        cls, patches, grid = embed(state, frame)
        if cls is not None:
            kept['cls', j] = norm(cls, state, first_norm, tower.eps)
        for i, patch in enumerate(patches):
            kept['patch', j, i // grid[1], i % grid[1]] = norm(patch, state, first_norm, tower.eps)
    count = len(frames)

    def of(kind: str, j: int) -> list[tuple]:
        return [name for name in kept if name[:2] == (kind, j)]

    for layer in range(depth(state, blocks)):
        joined = video_from is not None and layer >= video_from
        if layer == video_from:
            kept = {name: token + frame_position[name[1]] for name, token in kept.items()}
        summaries.append(torch.stack([
            kept['cls', j] if tower.read == 'cls' else torch.stack([kept[n] for n in of('patch', j)]).mean(dim=0)
            for j in range(count)]))
        tokens = prompts.get(layer, frames.new_zeros(0, summaries[0].shape[1]))
        tokens = tokens(summaries[-1]) if callable(tokens) else tokens
        if layer == 0:
            tokens = norm(tokens, state, first_norm, tower.eps)
        after = {}
        for group in [range(count)] if joined else [[j] for j in range(count)]:
            own = tokens if tokens.ndim == 2 else tokens[group[0]]
            sequence = [(name, kept[name]) for j in group for name in of('cls', j)]
            sequence += [(('prompt', ), token) for token in own]
            sequence += [(name, kept[name]) for j in group for name in of('patch', j)]
            places = [name[2:] if name[0] == 'patch' else None for name, _ in sequence]
            x = block(torch.stack([token for _, token in sequence]), state, f'{blocks}{layer}', tower, None, places,
                      grid)
            after |= {name: token for (name, _), token in zip(sequence, x) if name[0] != 'prompt'}
        kept = after
    out = [pooled(state, tower, kept.get(('cls', j)), torch.stack([kept[n] for n in of('patch', j)]))
           for j in range(count)]
    return F.normalize(torch.stack(out), dim=1), summaries


# -- captions ----------------------------------------------------------------------------------------------------------
def text_embedding(state: State, tower: Text, ids: list[int], prompts: Mapping[int, Tensor] = {}) -> Tensor:
    """Embed a caption, of unit length.

    Args:
        state (State): Parameters and buffers under open_clip's names.
        tower (Text): The tower's numbers.
        ids (list[int]): Token ids, as many as fit beside the prompts.
        prompts (Mapping[int, Tensor]): Layer -> tokens [P, C] that stand after the first one.
    """
    name = 'text.' if 'text.token_embedding.weight' in state else ''
    kept = {i: state[f'{name}token_embedding.weight'][token] for i, token in enumerate(ids)}
    visible = dict.fromkeys(kept, True)
    if tower.read == 'own':
        end = len(ids)
        kept[end] = state[f'{name}cls_emb']
        # CoCa's mask of padding is shifted: each token is seen if the one before it is no padding
        visible = {i: i == 0 or ids[i - 1] != tower.pad_id for i in kept}
    elif tower.read == 'last':
        end = len(ids) - 1
    else:
        end = ids.index(max(ids) if tower.read == 'largest' else tower.read)
    for layer in range(depth(state, f'{name}transformer.resblocks.')):
        own = list(prompts.get(layer, ()))
        sequence = [(0, kept[0]), *(('prompt', token) for token in own), *((i, kept[i]) for i in list(kept)[1:])]
        x = torch.stack([token for _, token in sequence])
        if layer == 0:
            x = x + state[f'{name}positional_embedding'][:len(x)]
        allowed = torch.tensor([[(n == 'prompt' or visible[n]) and (key <= query or not tower.causal)
                                 for key, (n, _) in enumerate(sequence)] for query in range(len(x))])
        x = block(x, state, f'{name}transformer.resblocks.{layer}', tower, allowed)
        kept = {n: token for (n, _), token in zip(sequence, x) if n != 'prompt'}
    x = norm(kept[end], state, f'{name}ln_final', tower.eps)
    if f'{name}text_projection' in state:
        x = x @ state[f'{name}text_projection']
    elif f'{name}text_projection.weight' in state:
        x = linear(x, state, f'{name}text_projection')
    return F.normalize(x, dim=0)
