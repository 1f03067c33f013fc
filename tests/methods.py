"""The methods of VoP and the baselines as configs, and what must hold for them on every backbone (VoP, section 3).

``make`` is what builds a retriever from the name of a method and changes of its config.
"""
import copy

import torch

from tests.clips import generic
from vop_mm.models.tuning import trainable_parameters
from vop_mm.registry import MODELS

FRAMES, DEPTH, SHALLOW = 5, 4, 2
ARCH = dict(embed_dim=24, quick_gelu=True,
            vision_cfg=dict(image_size=16, patch_size=8, width=32, head_width=16, layers=DEPTH),
            text_cfg=dict(context_length=24, vocab_size=60, width=48, heads=3, layers=3))
TEXT = dict(text_prompts=[dict(type='GenericPrompt', num_tokens=3)])


def position(num_tokens, **layers):
    return dict(type='PositionPrompt', num_tokens=num_tokens, init_std=0.5, **layers)


def context(num_tokens, mixer='BiLSTM', **layers):
    return dict(type='ContextPrompt', num_tokens=num_tokens, mixer=dict(type=mixer), **layers)


SCOPES = dict(video_prompts=[generic(4)], video_from=SHALLOW)
PROMPTED = {
    'vop': dict(frame_prompts=[generic(4)], **TEXT),
    'vop_p': dict(frame_prompts=[generic(2), position(2)], **TEXT),
    'vop_c': dict(frame_prompts=[generic(2), context(2)], **TEXT),
    'vop_f': dict(frame_prompts=[generic(4)], **SCOPES, **TEXT),
    'vop_f_p': dict(frame_prompts=[generic(2), position(2)], **SCOPES, **TEXT),
    'vop_f_c': dict(frame_prompts=[generic(2), context(2)], **SCOPES, **TEXT),
    'vop_c_lstm': dict(frame_prompts=[generic(2), context(2, mixer='LSTM')], **TEXT),
    'vop_c_transformer': dict(frame_prompts=[generic(2), context(2, mixer='FrameTransformer')], **TEXT),
    'vop_c_update': dict(frame_prompts=[generic(4)], cls_updates=[dict(type='ContextUpdate')], **TEXT),
    'vop_f_from_0': dict(video_prompts=[generic(4)], video_from=0, **TEXT),
    'vop_p_everywhere_f': dict(frame_prompts=[generic(2, layers=None), position(2, layers=None)], video_from=SHALLOW,
                               **TEXT),
}
BASELINES = {
    'full': dict(tuning=dict(type='FullTuning')), 'bias': dict(tuning=dict(type='BiasTuning')),
    'proj': dict(tuning=dict(type='ProjTuning')), 'partial': dict(tuning=dict(type='PartialTuning')),
    'adapter_attn': dict(tuning=dict(type='AdapterTuning', beside='attn', hidden=6)),
    'adapter_ffn': dict(tuning=dict(type='AdapterTuning', beside='mlp', hidden=6)),
    'zero_shot': dict(tuning=dict(type='ZeroShot')),
}
METHODS = {**PROMPTED, **BASELINES}
# whether an embedding of one frame depends on the others
MIXES = {name: name.startswith(('vop_c', 'vop_f')) or name == 'vop_p_everywhere_f' for name in METHODS}


def build(method='vop', backbone=None, dtype=torch.float64, seed=0, compile=False, **changes):
    """A retriever in eval mode; without a backbone, on a small CLIP with random weights."""
    torch.manual_seed(seed)
    cfg = copy.deepcopy(dict(METHODS[method], **changes))
    backbone = backbone or dict(type='OpenCLIP', arch=copy.deepcopy(ARCH), compile=compile)
    model = MODELS.build(dict(type='TextVideoRetriever', backbone=backbone, num_frames=FRAMES, **cfg))
    for module in model.modules():  # some start as the identity; here they do something
        if type(module).__name__ == 'ParallelAdapter':
            torch.nn.init.normal_(module.up.weight, std=0.1)
        if type(module).__name__ == 'ContextUpdate':
            torch.nn.init.normal_(module.fc.weight, std=0.1)
    return model.to(dtype).eval()


def batch(videos=3, frames=FRAMES, dtype=torch.float64, seed=1):
    """Frames and captions for the small CLIP."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(videos, frames, 3, 16, 16, generator=generator, dtype=dtype)
    tokens = torch.randint(1, 58, (videos, 9), generator=generator)
    for row, length in zip(tokens, (9, 4, 6), strict=False):
        row[length - 1], row[length:] = 59, 0
    return pixels, tokens


def close(a, b, tolerance=1e-12):
    return torch.allclose(a, b, rtol=0, atol=tolerance)


def set_weight(parameter, value):
    with torch.no_grad():
        parameter.copy_(value)


# -- methods that are equal under conditions ---------------------------------------------------------------------------
def assert_video_scope_from_the_last_layer_on_is_vop(make, frames, depth):
    vop = make('vop').encode_frames(frames)
    assert close(make('vop', video_from=depth).encode_frames(frames), vop)
    assert not close(make('vop_f').encode_frames(frames), vop, 1e-3)


def assert_equal_position_rows_are_vop_with_generic_before_specific(make, frames):
    model, vop = make('vop_p'), make('vop')
    first, table = model.vision_tower.prompts
    set_weight(table.weight, table.weight[:, :1])
    set_weight(vop.vision_tower.prompts[0].weight, torch.cat([first.weight, table.weight[:, 0]], dim=1))
    assert close(model.encode_frames(frames), vop.encode_frames(frames))


def assert_context_without_weights_is_vop_with_the_bias(make, frames, depth):
    model, vop = make('vop_c'), make('vop')
    first, module = model.vision_tower.prompts
    set_weight(module.fc.weight, torch.zeros_like(module.fc.weight))
    tokens = module.fc.bias.view(1, 2, -1).expand(depth, -1, -1)
    set_weight(vop.vision_tower.prompts[0].weight, torch.cat([first.weight, tokens], dim=1))
    assert close(model.encode_frames(frames), vop.encode_frames(frames))


def assert_a_new_adapter_is_the_identity(make, name, frames, tokens):
    model, plain = make(name), make('zero_shot')
    assert not close(model.encode_frames(frames), plain.encode_frames(frames), 1e-3)
    assert not close(model.encode_text(tokens), plain.encode_text(tokens), 1e-3)
    for module in model.modules():
        if type(module).__name__ == 'ParallelAdapter':
            torch.nn.init.zeros_(module.up.weight)
            torch.nn.init.zeros_(module.up.bias)
    assert close(model.encode_frames(frames), plain.encode_frames(frames))
    assert close(model.encode_text(tokens), plain.encode_text(tokens))


# -- which frame depends on which --------------------------------------------------------------------------------------
def assert_a_changed_frame_changes_the_others_only_where_frames_mix(model, name, frames):
    changed = frames.clone()
    changed[:, 2] += 1
    difference = (model.encode_frames(changed) - model.encode_frames(frames)).abs().amax(dim=(0, 2))
    assert difference[2] > 1e-4
    before, after = difference[:2], difference[3:]
    assert (after > 1e-7).all() if MIXES[name] else (after == 0).all()
    # an LSTM in one direction carries nothing back
    assert (before > 1e-7).all() if MIXES[name] and name != 'vop_c_lstm' else (before == 0).all()


def assert_only_layers_of_video_scope_mix(model, frames):
    """What enters the first of them depends on one frame alone."""
    changed = frames.clone()
    changed[:, 2] += 1
    seen = []
    join = model.vision_tower._join_frames

    def record(cls, patches):
        seen.append(torch.cat([cls, patches], dim=2))
        return join(cls, patches)

    model.vision_tower._join_frames = record
    model.encode_frames(frames), model.encode_frames(changed)
    difference = (seen[0] - seen[1]).abs().amax(dim=(0, 2, 3))
    assert difference[2] > 0 and (difference[[0, 1, 3, 4]] == 0).all()


def assert_frames_permuted_with_what_belongs_to_them_permute_the_embeddings(model, frames):
    order = torch.tensor([3, 0, 4, 1, 2])
    expected = model.encode_frames(frames)[:, order]
    for provider in model.vision_tower.prompts:
        if type(provider).__name__ == 'PositionPrompt':
            set_weight(provider.weight, provider.weight[:, order].clone())
    if hasattr(model.vision_tower, 'frame_position'):
        set_weight(model.vision_tower.frame_position, model.vision_tower.frame_position[order].clone())
    assert close(model.encode_frames(frames[:, order]), expected)


# -- what trains -------------------------------------------------------------------------------------------------------
def assert_gradients_are_on_what_trains_and_the_rest_stays(model, frames, tokens):
    """In a step in training mode; buffers that no state dict has stay as well."""

    def tensors():
        return {**dict(model.named_buffers()), **model.state_dict()}

    model.train()
    before = {k: v.clone() for k, v in tensors().items()}
    trainable = trainable_parameters(model)
    optimizer = torch.optim.AdamW(trainable.values(), lr=1e-2)
    model(frames, tokens, mode='loss')['loss'].backward()
    assert {k for k, p in model.named_parameters() if p.grad is not None} == set(trainable)
    optimizer.step()
    assert {k for k, v in tensors().items() if not torch.equal(v, before[k])} == set(trainable)


# -- padding and batches -----------------------------------------------------------------------------------------------
def assert_a_batch_is_as_one_by_one(model, frames, tokens):
    assert close(model.encode_video(frames), torch.cat([model.encode_video(v[None]) for v in frames]))
    assert close(model.encode_text(tokens), torch.cat([model.encode_text(t[None]) for t in tokens]))


def assert_masked_frames_are_as_if_they_were_not_there(model, frames):
    real = torch.tensor([5, 3, 1])
    mask = torch.arange(FRAMES)[None] < real[:, None]
    alone = torch.cat([model.encode_video(v[None, :n]) for v, n in zip(frames, real, strict=True)])
    filled = torch.where(mask[..., None, None, None], frames, 7.)  # what stands in the padding doesn't matter
    assert close(model.encode_video(filled, mask), alone)
