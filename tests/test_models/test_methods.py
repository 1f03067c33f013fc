"""The properties of every method (VoP, section 3), with values, in float64 on a small CLIP."""
import copy

import pytest
import torch
from torch.nn import functional as F

from tests.versions import needs
from vop_mm.engine.checkpoint import match
from vop_mm.models.tuning import trainable_parameters, trainable_state_dict
from vop_mm.registry import MODELS

FRAMES, DEPTH, SHALLOW = 5, 4, 2
ARCH = dict(embed_dim=24, quick_gelu=True,
            vision_cfg=dict(image_size=16, patch_size=8, width=32, head_width=16, layers=DEPTH),
            text_cfg=dict(context_length=24, vocab_size=60, width=48, heads=3, layers=3))
TEXT = dict(text_prompts=[dict(type='GenericPrompt', num_tokens=3)])


def generic(num_tokens, **layers):
    return dict(type='GenericPrompt', num_tokens=num_tokens, init_std=0.5, **layers)


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


def build(method='vop', dtype=torch.float64, seed=0, compile=False, **changes):
    torch.manual_seed(seed)
    cfg = copy.deepcopy(dict(METHODS[method], **changes))
    backbone = dict(type='OpenCLIP', arch=copy.deepcopy(ARCH), compile=compile)
    model = MODELS.build(dict(type='TextVideoRetriever', backbone=backbone, num_frames=FRAMES, **cfg))
    for module in model.modules():  # some start as the identity; here they do something
        if type(module).__name__ == 'ParallelAdapter':
            torch.nn.init.normal_(module.up.weight, std=0.1)
        if type(module).__name__ == 'ContextUpdate':
            torch.nn.init.normal_(module.fc.weight, std=0.1)
    return model.to(dtype).eval()


def batch(videos=3, frames=FRAMES, dtype=torch.float64, seed=1):
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


# -- where prompts stand ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', ['vop_f_p', 'vop_f_c'])
@pytest.mark.parametrize('video_from', range(1, DEPTH))
def test_scopes_are_the_layers_below_and_from_video_from(name, video_from):
    *frames, videos = build(name, video_from=video_from).vision_tower.prompts
    assert [p.layers for p in frames] == [tuple(range(video_from))] * 2
    assert videos.layers == tuple(range(video_from, DEPTH))


def test_layers_that_are_named_win():
    model = build('vop_f', frame_prompts=[generic(2, layers=(1, 4)), generic(1, layers=None)], video_from=0)
    assert [p.layers for p in model.vision_tower.prompts] == [(1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3)]


@pytest.mark.parametrize(('method', 'video_from', 'says'), [
    ('vop_f', None, 'video_prompts stand in no layer: of 4 layers, those below video_from=4 see frames'),
    ('vop_f', 0, 'frame_prompts stand in no layer: of 4 layers, those below video_from=0 see frames'),
    ('vop', 5, r'video_from must be in 0\.\.4')])
def test_prompts_without_a_layer_are_refused(method, video_from, says):
    with pytest.raises(ValueError, match=says):
        build(method, video_from=video_from)


@pytest.mark.parametrize('name', [n for n in PROMPTED if 'frame_prompts' in PROMPTED[n]])
def test_configs_and_checkpoints_from_before_scopes_are_the_same_model(name):
    """All prompts stood in ``video_prompts``, with their layers where those weren't all."""
    frames, videos = (PROMPTED[name].get(key, ()) for key in ('frame_prompts', 'video_prompts'))
    prompts = frames if name == 'vop_f' or not videos else [
        *(dict(p, layers=(0, SHALLOW)) for p in frames), *(dict(p, layers=(SHALLOW, DEPTH)) for p in videos)]
    old, model, (pixels, _) = build(name, frame_prompts=None, video_prompts=prompts), build(name, seed=1), batch()
    model.backbone.load_state_dict(old.backbone.state_dict())
    checkpoint = dict(state_dict=trainable_state_dict(old))
    assert (checkpoint['state_dict'].keys() == trainable_state_dict(model).keys()) == (name != 'vop_f')
    match(checkpoint, model)
    model.load_state_dict(checkpoint['state_dict'])
    assert torch.equal(model.encode_frames(pixels), old.encode_frames(pixels))


# -- 2. methods that are equal under conditions ------------------------------------------------------------------------
def test_video_scope_from_the_last_layer_on_is_vop():
    frames, _ = batch()
    assert close(build('vop', video_from=DEPTH).encode_frames(frames), build('vop').encode_frames(frames))
    assert not close(build('vop_f').encode_frames(frames), build('vop').encode_frames(frames), 1e-3)


def test_equal_position_rows_are_vop_with_generic_before_specific():
    model, vop, (frames, _) = build('vop_p'), build('vop'), batch()
    first, table = model.vision_tower.prompts
    set_weight(table.weight, table.weight[:, :1])
    set_weight(vop.vision_tower.prompts[0].weight, torch.cat([first.weight, table.weight[:, 0]], dim=1))
    assert close(model.encode_frames(frames), vop.encode_frames(frames))


def test_context_without_weights_is_vop_with_the_bias():
    model, vop, (frames, _) = build('vop_c'), build('vop'), batch()
    first, module = model.vision_tower.prompts
    set_weight(module.fc.weight, torch.zeros_like(module.fc.weight))
    tokens = module.fc.bias.view(1, 2, -1).expand(DEPTH, -1, -1)
    set_weight(vop.vision_tower.prompts[0].weight, torch.cat([first.weight, tokens], dim=1))
    assert close(model.encode_frames(frames), vop.encode_frames(frames))


@pytest.mark.parametrize('name', ['adapter_attn', 'adapter_ffn'])
def test_a_new_adapter_is_the_identity(name):
    model, plain, (frames, tokens) = build(name), build('zero_shot'), batch()
    for module in model.modules():
        if type(module).__name__ == 'ParallelAdapter':
            torch.nn.init.zeros_(module.up.weight)
    assert close(model.encode_frames(frames), plain.encode_frames(frames))
    assert close(model.encode_text(tokens), plain.encode_text(tokens))
    assert not close(build(name).encode_text(tokens), plain.encode_text(tokens), 1e-3)


# -- an independent reference of what the towers do --------------------------------------------------------------------
def attend(block, x):
    """One block of CLIP written out: no open_clip forward, no fused attention."""
    attn, y = block.attn, block.ln_1(x)
    q, k, v = F.linear(y, attn.in_proj_weight, attn.in_proj_bias).chunk(3, dim=-1)
    q, k, v = (t.view(len(t), attn.num_heads, -1).transpose(0, 1) for t in (q, k, v))
    weights = (q @ k.transpose(1, 2) / q.shape[-1]**0.5).softmax(dim=-1)
    x = x + attn.out_proj((weights @ v).transpose(0, 1).reshape(len(x), -1))
    return x + block.mlp(block.ln_2(x))


def reference_frames(model, frames):
    """Frame embeddings of videos, one at a time and token by token, as method descriptions say."""
    visual, tower, out = model.backbone.model.visual, model.vision_tower, []
    for video in frames:
        x = visual.conv1(video).flatten(2).transpose(1, 2)
        cls = (visual.class_embedding + visual.positional_embedding[0]).expand(len(video), -1)
        cls, patches = visual.ln_pre(cls), visual.ln_pre(x + visual.positional_embedding[1:])
        for layer, block in enumerate(visual.transformer.resblocks):
            if layer == tower.video_from:
                cls = cls + tower.frame_position
                patches = patches + tower.frame_position[:, None]
            for module in tower.cls_updates:
                cls = cls + module.fc(module.mixer(cls[None]))[0]
            prompts = [[] for _ in video]
            for provider in tower.prompts:
                if layer not in provider.layers:
                    continue
                kind, row = type(provider).__name__, provider.layers.index(layer)
                for j in range(len(video)):
                    if kind == 'GenericPrompt':
                        prompts[j].append(provider.weight[row])
                    elif kind == 'PositionPrompt':
                        prompts[j].append(provider.weight[row, j])
                    else:
                        prompts[j].append(provider.fc(provider.mixer(cls[None]))[0, j].view(provider.num_tokens, -1))
            prompts = [torch.cat(p) for p in prompts]
            if layer == 0:
                prompts = [visual.ln_pre(p) for p in prompts]
            if layer < tower.video_from:
                states = [attend(block, torch.cat([cls[j:j + 1], prompts[j], patches[j]])) for j in range(len(video))]
                cls = torch.stack([s[0] for s in states])
                patches = torch.stack([s[-patches.shape[1]:] for s in states])
            else:
                state = attend(block, torch.cat([cls, prompts[0], *patches]))
                cls, patches = state[:len(video)], state[-patches.shape[0] * patches.shape[1]:].view_as(patches)
        out.append(F.normalize(visual.ln_post(cls) @ visual.proj, dim=-1))
    return torch.stack(out)


@pytest.mark.parametrize('name', [n for n in PROMPTED if n != 'vop_p_everywhere_f'])
def test_frames_equal_the_reference_in_value_and_gradient(name):
    model, (frames, _) = build(name), batch()
    ours, reference = model.encode_frames(frames), reference_frames(model, frames)
    assert close(ours, reference)
    parameters = list(model.vision_tower.parameters())
    direction = torch.randn(ours.shape, generator=torch.Generator().manual_seed(3), dtype=ours.dtype)
    for ours_grad, grad in zip(torch.autograd.grad((ours * direction).sum(), parameters, allow_unused=True),
                               torch.autograd.grad((reference * direction).sum(), parameters, allow_unused=True),
                               strict=True):
        assert close(ours_grad, grad, 1e-10) and grad.abs().max() > 0


# -- 3. and 4. which frame depends on which ----------------------------------------------------------------------------
@pytest.mark.parametrize('name', METHODS)
def test_a_changed_frame_changes_the_others_only_where_frames_mix(name):
    model, (frames, _) = build(name), batch(videos=1)
    changed = frames.clone()
    changed[:, 2] += 1
    difference = (model.encode_frames(changed) - model.encode_frames(frames)).abs().amax(dim=(0, 2))
    assert difference[2] > 1e-4
    before, after = difference[:2], difference[3:]
    assert (after > 1e-7).all() if MIXES[name] else (after == 0).all()
    # an LSTM in one direction carries nothing back
    assert (before > 1e-7).all() if MIXES[name] and name != 'vop_c_lstm' else (before == 0).all()


def test_only_layers_of_video_scope_mix():
    """With the frames' tokens put back before the first of them, a change of one frame reaches no other."""
    model, (frames, _) = build('vop_f'), batch(videos=1)
    changed = frames.clone()
    changed[:, 2] += 1
    seen = {}
    join = model.vision_tower._join_frames

    def record(cls, patches):
        seen.setdefault('cls', []).append(cls)
        return join(cls, patches)

    model.vision_tower._join_frames = record
    model.encode_frames(frames), model.encode_frames(changed)
    difference = (seen['cls'][0] - seen['cls'][1]).abs().amax(dim=(0, 2, 3))
    assert difference[2] > 0 and (difference[[0, 1, 3, 4]] == 0).all()


@pytest.mark.parametrize('name', ['vop', 'vop_p', 'vop_f', 'vop_f_p', 'vop_f_from_0', 'zero_shot'])
def test_frames_permuted_with_what_belongs_to_them_permute_the_embeddings(name):
    model, (frames, _) = build(name), batch()
    order = torch.tensor([3, 0, 4, 1, 2])
    expected = model.encode_frames(frames)[:, order]
    for provider in model.vision_tower.prompts:
        if type(provider).__name__ == 'PositionPrompt':
            set_weight(provider.weight, provider.weight[:, order].clone())
    if hasattr(model.vision_tower, 'frame_position'):
        set_weight(model.vision_tower.frame_position, model.vision_tower.frame_position[order].clone())
    assert close(model.encode_frames(frames[:, order]), expected)


# -- 5. what trains ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', [n for n in METHODS if n != 'zero_shot'])
def test_gradients_are_on_what_trains_and_the_rest_stays(name):
    model = build(name, dtype=torch.float32).train()
    frames, tokens = batch(dtype=torch.float32)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    trainable = trainable_parameters(model)
    optimizer = torch.optim.AdamW(trainable.values(), lr=1e-2)
    model(frames, tokens, mode='loss')['loss'].backward()
    with_gradient = {k for k, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == set(trainable)
    optimizer.step()
    for key, value in model.state_dict().items():
        if key in trainable:
            assert not torch.equal(value, before[key]), key
        else:
            assert torch.equal(value, before[key]), key


# -- 6. padding and batches --------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', METHODS)
def test_a_batch_is_as_one_by_one(name):
    model, (frames, tokens) = build(name), batch()
    assert close(model.encode_video(frames), torch.cat([model.encode_video(v[None]) for v in frames]))
    assert close(model.encode_text(tokens), torch.cat([model.encode_text(t[None]) for t in tokens]))


@pytest.mark.parametrize('name', METHODS)
def test_masked_frames_are_as_if_they_were_not_there(name):
    model, (frames, _) = build(name), batch(videos=3)
    real = torch.tensor([5, 3, 1])
    mask = torch.arange(FRAMES)[None] < real[:, None]
    alone = torch.cat([model.encode_video(v[None, :n]) for v, n in zip(frames, real, strict=True)])
    filled = torch.where(mask[..., None, None, None], frames, 7.)  # what stands in the padding doesn't matter
    assert close(model.encode_video(filled, mask), alone)


# -- other ways to compute the same ------------------------------------------------------------------------------------
def loss_and_gradients(model, frames, tokens):
    model.zero_grad()
    loss = model(frames, tokens, mode='loss')['loss']
    loss.backward()
    return loss.detach(), {k: p.grad.clone() for k, p in trainable_parameters(model).items()}


@pytest.mark.parametrize('name', [n for n in METHODS if n != 'zero_shot'])
def test_recomputed_activations_change_nothing(name):
    frames, tokens = batch()
    loss, gradients = loss_and_gradients(build(name), frames, tokens)
    other_loss, others = loss_and_gradients(build(name, recompute=True), frames, tokens)
    assert close(loss, other_loss)
    assert all(close(gradients[k], others[k]) for k in gradients)


@pytest.mark.parametrize('name', METHODS)
def test_bfloat16_autocast_is_close(name):
    model = build(name, dtype=torch.float32)
    frames, tokens = batch(dtype=torch.float32)
    plain = model(frames, tokens)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough = model(frames, tokens)
    for key in plain:
        cosine = F.cosine_similarity(plain[key], rough[key].float(), dim=-1)
        assert (cosine > 0.99).all() and not torch.equal(plain[key], rough[key].float())


@pytest.mark.parametrize(('name', 'recompute'), [
    *((n, False) for n in METHODS if n != 'zero_shot'),
    *(pytest.param(n, True, marks=needs('torch', '2.5', 'recomputing what is compiled')) for n in ('vop_f_c', 'full'))])
def test_a_compiled_backbone_changes_nothing(name, recompute):
    """Through all of torch.compile but the making of machine code, which takes seconds a method."""
    torch._dynamo.reset()
    frames, tokens = batch()
    loss, gradients = loss_and_gradients(build(name), frames, tokens)
    compiled = build(name, compile=dict(backend='aot_eager'), recompute=recompute)
    other_loss, others = loss_and_gradients(compiled, frames, tokens)
    assert sum(block._compiled_call_impl is not None for block in compiled.backbone.vision_blocks) == DEPTH
    assert torch._dynamo.utils.counters['frames']['ok'] > 0, 'nothing was compiled'
    assert close(loss, other_loss)
    assert all(close(gradients[k], others[k]) for k in gradients)


def test_compiled_to_machine_code_changes_nothing():
    """In float32: torch 2.9 still makes code for attention in float64 that fails on the way back."""
    torch._dynamo.reset()
    frames, tokens = batch(dtype=torch.float32)
    plain, compiled = (build('vop_f_c', dtype=torch.float32, compile=compile) for compile in (False, True))
    loss, gradients = loss_and_gradients(plain, frames, tokens)
    other_loss, others = loss_and_gradients(compiled, frames, tokens)
    assert close(loss, other_loss, 1e-5)
    assert all(close(gradients[k], others[k], 1e-5 * (1 + gradients[k].abs().max())) for k in gradients)
    with torch.no_grad():
        assert close(compiled.encode_frames(frames[:2, :3]), plain.encode_frames(frames[:2, :3]), 1e-5)
