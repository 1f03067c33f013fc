"""The properties of every method (VoP, section 3), with values, in float64 on a small CLIP."""
import pytest
import torch
from torch.nn import functional as F

from tests import methods
from tests.clips import generic
from tests.methods import DEPTH, METHODS, PROMPTED, SHALLOW, batch, build, close
from tests.versions import needs
from vop_mm.engine.checkpoint import match
from vop_mm.models.tuning import trainable_parameters, trainable_state_dict


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
    methods.assert_video_scope_from_the_last_layer_on_is_vop(build, batch()[0], DEPTH)


def test_equal_position_rows_are_vop_with_generic_before_specific():
    methods.assert_equal_position_rows_are_vop_with_generic_before_specific(build, batch()[0])


def test_context_without_weights_is_vop_with_the_bias():
    methods.assert_context_without_weights_is_vop_with_the_bias(build, batch()[0], DEPTH)


@pytest.mark.parametrize('name', ['adapter_attn', 'adapter_ffn'])
def test_a_new_adapter_is_the_identity(name):
    methods.assert_a_new_adapter_is_the_identity(build, name, *batch())


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
    methods.assert_a_changed_frame_changes_the_others_only_where_frames_mix(build(name), name, batch(videos=1)[0])


def test_only_layers_of_video_scope_mix():
    methods.assert_only_layers_of_video_scope_mix(build('vop_f'), batch(videos=1)[0])


@pytest.mark.parametrize('name', ['vop', 'vop_p', 'vop_f', 'vop_f_p', 'vop_f_from_0', 'zero_shot'])
def test_frames_permuted_with_what_belongs_to_them_permute_the_embeddings(name):
    methods.assert_frames_permuted_with_what_belongs_to_them_permute_the_embeddings(build(name), batch()[0])


# -- 5. what trains ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', [n for n in METHODS if n != 'zero_shot'])
def test_gradients_are_on_what_trains_and_the_rest_stays(name):
    methods.assert_gradients_are_on_what_trains_and_the_rest_stays(
        build(name, dtype=torch.float32), *batch(dtype=torch.float32))


# -- 6. padding and batches --------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', METHODS)
def test_a_batch_is_as_one_by_one(name):
    methods.assert_a_batch_is_as_one_by_one(build(name), *batch())


@pytest.mark.parametrize('name', METHODS)
def test_masked_frames_are_as_if_they_were_not_there(name):
    methods.assert_masked_frames_are_as_if_they_were_not_there(build(name), batch()[0])


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
