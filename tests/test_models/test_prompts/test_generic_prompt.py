"""Tokens that all videos and frames share."""
import torch

from vop_mm.models.prompts import GenericPrompt, LayerContext
from vop_mm.registry import PROMPTS


def context(layer, videos=2, frames=3):
    return LayerContext(layer, torch.randn(videos, frames, 16))


def test_each_layer_has_its_own_tokens():
    provider = GenericPrompt(4, width=16, depth=6, layers=[(1, 3), (5, 6)])
    assert provider.weight.shape == (3, 4, 16)
    for row, layer in enumerate((1, 2, 5)):
        tokens = provider.tokens(context(layer))
        assert tokens.shape == (1, 1, 4, 16)  # of size 1 where shared: the tower expands them
        assert torch.equal(tokens[0, 0], provider.weight[row])
        assert tokens.untyped_storage().data_ptr() == provider.weight.untyped_storage().data_ptr()


def test_what_the_frames_show_changes_nothing():
    provider = GenericPrompt(4, width=16, depth=2)
    assert torch.equal(provider.tokens(context(1)), provider.tokens(context(1, videos=5)))


def test_initialisation_is_normal_with_std_002():
    torch.manual_seed(0)
    weight = PROMPTS.build(dict(type='GenericPrompt'), default_args=dict(width=768, depth=12, num_frames=12)).weight
    assert weight.shape == (12, 8, 768)  # the paper's
    assert abs(weight.std().item() - 0.02) < 2e-4 and abs(weight.mean().item()) < 2e-4
    kurtosis = (weight / weight.std()).pow(4).mean().item()
    assert abs(kurtosis - 3) < 0.1  # of a normal distribution; a uniform one has 1.8
    assert abs(GenericPrompt(8, width=768, depth=12, init_std=0.5).weight.std().item() - 0.5) < 5e-3
