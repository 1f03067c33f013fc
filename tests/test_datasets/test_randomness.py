import copy
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, pseudo_collate
from torch.utils.data import DataLoader

from tests.datasets import PIPELINE, build, indices
from vop_mm.datasets.randomness import fixed_randomness

RANDOM_PIPELINE = [PIPELINE[0], dict(type='mmaction.RandomResizedCrop', area_range=(0.3, 1.0)), PIPELINE[1],
                   dict(type='mmaction.Flip', flip_ratio=0.5), *PIPELINE[2:]]


def epochs(data, num_workers: int, count: int = 3, **loader) -> list[bytes]:
    """What a loader gives in each of the epochs, as bytes."""
    sampler = DefaultSampler(data, shuffle=False)
    loader = DataLoader(data, batch_size=3, num_workers=num_workers, sampler=sampler, collate_fn=pseudo_collate,
                        **loader)
    result = []
    for epoch in range(count):
        data.set_epoch(epoch)
        result.append(b''.join(frames.numpy().tobytes() for batch in loader for frames in batch['inputs']))
    return result


def test_random_choices_depend_on_seed_epoch_and_index_alone(whole):
    data = build(whole, pipeline=RANDOM_PIPELINE)
    expected = epochs(data, 0)
    assert len(set(expected)) == 3
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    assert epochs(data, 2) == expected
    assert epochs(data, 2, persistent_workers=True) == expected
    assert epochs(data, 1, persistent_workers=True, multiprocessing_context='spawn') == expected
    data.set_epoch(0, seed=1)
    assert epochs(data, 0) != expected
    data.set_epoch(0, seed=0)
    data.set_epoch(2)  # a resumed run starts here
    assert data[4]['inputs'].numpy().tobytes() in expected[2]


def test_items_of_an_epoch_draw_differently(whole):
    data = build(whole)
    assert len({tuple(i % 100 for i in indices(data[k])) for k in range(len(data))}) > 3


def test_evaluation_does_not_depend_on_the_epoch(whole):
    data = build(whole, test_mode=True)
    assert len(set(epochs(data, 0))) == 1


def test_global_generators_go_on_as_if_nothing_had_been(whole):
    data = build(whole, pipeline=RANDOM_PIPELINE)

    def draws():
        return random.random(), np.random.rand(), torch.rand(1).item()

    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = [draws(), draws()]
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    first = draws()
    data[0]
    assert [first, draws()] == expected


def test_generators_are_restored_after_an_error_and_differ_by_key():
    state = np.random.get_state()[1].tobytes()
    with pytest.raises(KeyError), fixed_randomness(1, 2):
        raise KeyError
    assert np.random.get_state()[1].tobytes() == state
    drawn = []
    for key in ((0, 1), (1, 0), (0, 1)):
        with fixed_randomness(*key):
            drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[2] and all(a != b for a, b in zip(drawn[0], drawn[1], strict=True))


def test_a_copy_has_a_clock_of_its_own_that_workers_see(whole):
    data = build(whole, pipeline=RANDOM_PIPELINE)
    other = copy.deepcopy(data)
    other.set_epoch(5)
    assert data._clock.epoch == 0 and other._clock.epoch == 5
    assert epochs(other, 2, persistent_workers=True) == epochs(data, 0)
