"""Where providers stand."""
import pytest
import torch
from mmengine.config import Config

from vop_mm.models.prompts import GenericPrompt, PromptProvider
from vop_mm.models.prompts.base import parse_layers
from vop_mm.registry import MIXERS, PROMPTS, UPDATES


@pytest.mark.parametrize(('layers', 'expected'), [
    (None, (0, 1, 2, 3, 4, 5)), ((0, 6), (0, 1, 2, 3, 4, 5)), ([2, 4], (2, 3)), ((5, 6), (5,)), ([(2, 4)], (2, 3)),
    ([(4, 6), (0, 1)], (0, 4, 5)), ([[0, 1], [2, 3], [5, 6]], (0, 2, 5)),
    (Config(dict(x=[(0, 2), (5, 6)])).x, (0, 1, 5)),
])
def test_layers_are_half_open_ranges(layers, expected):
    assert parse_layers(layers, 6) == expected


@pytest.mark.parametrize(('layers', 'says'), [
    ((0, 7), r'layers \(0, 7\) is not a range inside 0..6'), ((-1, 2), 'not a range'), ((3, 3), 'not a range'),
    ((4, 2), 'not a range'), ([(0, 3), (2, 4)], 'name a layer twice'), ((1, 2, 3), r'must be \(start, stop\)'),
    ([(0, 1, 2)], r'must be \(start, stop\)'), ([(0, 1), 3], r'must be \(start, stop\)'), ((0.0, 2), r'must be'),
    ((), 'must be'), ([], 'must be'), (3, 'must be'), ('all', 'must be'),
])
def test_what_is_no_layer_range_is_refused(layers, says):
    with pytest.raises(ValueError, match=says):
        parse_layers(layers, 6)


def test_a_provider_needs_tokens_and_layers():
    with pytest.raises(ValueError, match='GenericPrompt needs num_tokens >= 1, got 0'):
        GenericPrompt(0, width=4, depth=2)
    with pytest.raises(ValueError, match='inside 0..2'):
        GenericPrompt(1, width=4, depth=2, layers=(0, 3))


@pytest.mark.parametrize(('registry', 'name', 'says'), [
    (PROMPTS, 'BiLSTM', 'BiLSTM is not in the prompt registry: ContextPrompt, GenericPrompt, PositionPrompt'),
    (PROMPTS, 'ContextUpdate', 'not in the prompt registry: '), (UPDATES, 'GenericPrompt', 'registry: ContextUpdate'),
    (MIXERS, 'ContextPrompt', 'ContextPrompt is not in the mixer registry: BiLSTM, LSTM, FrameTransformer')])
def test_a_part_of_another_kind_is_not_built(registry, name, says):
    with pytest.raises(KeyError, match=says):
        registry.build(dict(type=name, width=4))


def test_rows_count_a_providers_own_layers():
    provider = GenericPrompt(1, width=4, depth=6, layers=[(4, 6), (1, 2)])
    assert [provider.row(layer) for layer in (1, 4, 5)] == [0, 1, 2]


def test_a_provider_of_ones_own_implements_tokens_alone():
    class Ones(PromptProvider):

        def tokens(self, context):
            return torch.ones(1, 1, self.num_tokens, self.width)

    assert Ones(3, width=4, depth=2).tokens(None).shape == (1, 1, 3, 4)
    with pytest.raises(TypeError, match='abstract'):
        PromptProvider(3, width=4, depth=2)
