"""What trains, what stays, what is saved. (Every method's gradients are in tests/test_models/test_methods.py.)"""
import pytest
import torch
from mmengine.config import Config

from tests.clips import SMALL, build_retriever, generic, random_frames, random_tokens
from vop_mm.engine.checkpoint import CheckpointError, describe, load_trainable
from vop_mm.engine.counting import count_trainable
from vop_mm.models.tuning import TuningStrategy, frozen_names, trainable_parameters, trainable_state_dict
from vop_mm.registry import MODELS, TUNING

PROMPTS = dict(frame_prompts=[generic(4)], text_prompts=[generic(4)], num_frames=2)
NAMES = {'vision_tower.prompts.0.weight', 'text_tower.prompts.0.weight'}
STRATEGIES = ('PromptTuning', 'ProjTuning', 'BiasTuning', 'PartialTuning', 'ZeroShot')


def train_a_step(model):
    """One step of the paper's optimizer; the state before it."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.2)
    model.train()
    model(random_frames(3, 2), random_tokens([5, 9, 30]), mode='loss')['loss'].backward()
    optimizer.step()
    return before


def test_prompts_alone_have_gradients_and_change():
    model = build_retriever(**PROMPTS)
    before = train_a_step(model)
    assert {name for name, p in model.named_parameters() if p.grad is not None} == NAMES
    for name, value in model.state_dict().items():
        if name in NAMES:
            assert (value != before[name]).all(), name
        else:
            assert torch.equal(value.view(torch.uint8) if value.ndim else value, before[name].view(torch.uint8)
                               if value.ndim else before[name]), name


def test_the_state_of_a_checkpoint_is_what_trains():
    model = build_retriever(**PROMPTS)
    state = trainable_state_dict(model)
    assert set(state) == set(trainable_parameters(model)) == NAMES
    assert frozen_names(model) >= {'backbone.model.visual.proj', 'backbone.model.logit_scale'}
    for name, value in state.items():
        assert value.untyped_storage().data_ptr() == model.get_parameter(name).untyped_storage().data_ptr()
    other = build_retriever(**PROMPTS, seed=7)
    other.backbone.load_state_dict(model.backbone.state_dict())
    missing, unexpected = other.load_state_dict(state)  # strict, and yet CLIP's weights aren't missing
    assert not missing and not unexpected
    frames = random_frames(1, 2)
    assert torch.equal(other.encode_video(frames), model.encode_video(frames))
    with pytest.raises(RuntimeError, match='text_tower.prompts.0.weight'):
        other.load_state_dict({k: v for k, v in state.items() if 'text' not in k})


@pytest.mark.parametrize('tuning', STRATEGIES)
def test_the_logit_scale_trains_where_a_config_says_so(tuning):
    name = 'backbone.model.logit_scale'
    plain = trainable_parameters(build_retriever(tuning=dict(type=tuning)))
    with_scale = trainable_parameters(build_retriever(tuning=dict(type=tuning, logit_scale=True)))
    assert name not in plain and set(with_scale) == {*plain, name}


def test_a_trained_logit_scale_moves_and_is_saved():
    model = build_retriever(**PROMPTS, tuning=dict(type='PromptTuning', logit_scale=True))
    before = train_a_step(model)
    assert set(trainable_state_dict(model)) == NAMES | {'backbone.model.logit_scale'}
    assert model.backbone.logit_scale != before['backbone.model.logit_scale']


@pytest.mark.parametrize('tuning', STRATEGIES)
def test_a_logit_bias_trains_with_the_logit_scale(tuning):
    names = {'backbone.model.logit_scale', 'backbone.model.logit_bias'}
    for scale in (False, True):
        model = build_retriever(dict(SMALL, init_logit_bias=-10.), tuning=dict(type=tuning, logit_scale=scale))
        assert names & set(trainable_parameters(model)) == (names if scale else set())


@pytest.mark.parametrize('tuning', [*STRATEGIES, 'FullTuning', 'AdapterTuning'])
def test_the_bias_of_a_loss_trains_if_anything_does(tuning):
    cfg = dict(type=tuning, **(dict(beside='mlp') if tuning == 'AdapterTuning' else {}))
    loss = dict(type='SigmoidLoss', bias=-10.)
    plain = set(trainable_parameters(build_retriever(**PROMPTS, tuning=cfg)))
    found = set(trainable_parameters(build_retriever(**PROMPTS, tuning=cfg, loss=loss)))
    assert found == plain | ({'loss_module.bias'} if tuning != 'ZeroShot' else set())
    if tuning == 'ZeroShot':
        model = build_retriever(tuning=dict(cfg, logit_scale=True), loss=loss)
        assert set(trainable_parameters(model)) == {'backbone.model.logit_scale', 'loss_module.bias'}


def test_the_bias_of_a_loss_moves_is_saved_counted_and_loaded(tmp_path):
    parts = dict(**PROMPTS, loss=dict(type='SigmoidLoss', bias=-10.))
    model = build_retriever(**parts)
    train_a_step(model)
    bias = model.loss_module.bias.item()
    assert bias != -10 and set(trainable_state_dict(model)) == NAMES | {'loss_module.bias'}
    assert count_trainable(model) == count_trainable(build_retriever(**PROMPTS)) + 1
    meta = dict(vop_mm=describe(model, Config(dict(method='VoP'))))
    torch.save(dict(meta=meta, state_dict=trainable_state_dict(model)), tmp_path / 'best.pth')
    other = build_retriever(**parts)
    load_trainable(other, str(tmp_path / 'best.pth'))
    assert other.loss_module.bias.item() == bias
    with pytest.raises(CheckpointError, match='it holds loss_module.bias'):
        load_trainable(build_retriever(**PROMPTS), str(tmp_path / 'best.pth'))


def test_nothing_trains_in_zero_shot():
    model = build_retriever(tuning=dict(type='ZeroShot'), num_frames=2)
    assert not trainable_parameters(model) and not trainable_state_dict(model)
    assert not model(random_frames(2, 2), random_tokens([4, 5]), mode='loss')['loss'].requires_grad
    # what stands around CLIP is frozen as well
    assert not trainable_parameters(build_retriever(**PROMPTS, tuning=dict(type='ZeroShot')))


def test_full_tuning_trains_clip_and_keeps_the_fingerprint_that_it_started_from():
    model = build_retriever(tuning=dict(type='FullTuning'), num_frames=2)
    started_from = model.backbone.fingerprint
    before = train_a_step(model)
    unchanged = {n for n, v in model.state_dict().items() if torch.equal(v, before[n])}
    assert unchanged <= {'backbone.model.attn_mask'}
    assert model.backbone.fingerprint == started_from
    with pytest.raises(TypeError, match='logit_scale'):  # it trains already
        TUNING.build(dict(type='FullTuning', logit_scale=False))


def test_vop_on_vit_b_32_has_the_papers_parameters():
    with torch.device('meta'):
        model = MODELS.build(dict(
            type='TextVideoRetriever', backbone=dict(type='OpenCLIP', arch='ViT-B-32-quickgelu'), num_frames=12,
            frame_prompts=[dict(type='GenericPrompt', num_tokens=8)],
            text_prompts=[dict(type='GenericPrompt', num_tokens=8)]))
    assert {n: p.numel() for n, p in trainable_parameters(model).items()} == {
        'vision_tower.prompts.0.weight': 12 * 8 * 768, 'text_tower.prompts.0.weight': 12 * 8 * 512}
    assert sum(p.numel() for p in trainable_parameters(model).values()) == 122_880
    assert sum(p.numel() for p in model.backbone.parameters()) == 151_277_313
    assert sum(p.numel() for p in model.parameters()) == 151_277_313 + 122_880
    assert sum(4 * v.numel() for v in trainable_state_dict(model).values()) == 491_520


def test_a_strategy_of_ones_own_is_one_class():
    @TUNING.register_module(name='OnlyTheFinalNorms', force=True)
    class OnlyTheFinalNorms(TuningStrategy):

        def trainable(self, model):
            return [*model.backbone.model.visual.ln_post.parameters(), *model.backbone.model.ln_final.parameters()]

    model = build_retriever(tuning=dict(type='OnlyTheFinalNorms'))
    assert {name.removeprefix('backbone.model.') for name in trainable_parameters(model)} == {
        'visual.ln_post.weight', 'visual.ln_post.bias', 'ln_final.weight', 'ln_final.bias'}
