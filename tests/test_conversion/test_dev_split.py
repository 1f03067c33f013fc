"""Holding out videos for model selection."""
import pytest

from vop_mm.conversion import hold_out
from vop_mm.conversion.dev_split import choose_caption

IDS = [f'video{i}' for i in range(1000)]


def test_size_order_and_seed():
    dev = hold_out(IDS, 0.05)
    assert len(dev) == 50 and dev == [x for x in IDS if x in dev]
    assert len(set(dev) & set(hold_out(IDS, 0.05, seed=1))) < 15  # 2.5 of 50 by chance
    # spread over the whole list, not its beginning
    assert 300 < sum(map(IDS.index, dev)) / 50 < 700


def test_does_not_depend_on_order_and_grows_by_adding():
    dev = set(hold_out(IDS, 0.05))
    assert set(hold_out(IDS[::-1], 0.05)) == dev
    assert dev < set(hold_out(IDS, 0.1))


def test_the_same_on_every_machine():
    """Results that were selected on a dev split can only be compared if everybody has the same one."""
    assert hold_out(IDS[:100], 0.05) == ['video62', 'video71', 'video76', 'video90', 'video95']
    assert [choose_caption(x, ['a', 'b', 'c', 'd']) for x in IDS[:8]] == list('acadcaad')


def test_of_nothing_none_is_held_out():
    assert hold_out(IDS, 0) == hold_out([], 0.) == []


def test_every_caption_can_be_chosen():
    assert {choose_caption(x, ['a', 'b', 'c']) for x in IDS[:50]} == {'a', 'b', 'c'}
    assert [choose_caption(x, ['a', 'b', 'c']) for x in IDS] != [choose_caption(x, ['a', 'b', 'c'], 1) for x in IDS]


@pytest.mark.parametrize('ids, fraction', [([], 0.1), (['a'], 0.1), (['a', 'b'], 0.9)])
def test_something_must_be_left_to_train_on(ids, fraction):
    with pytest.raises(ValueError, match='leaves nothing to train on'):
        hold_out(ids, fraction)
    assert len(hold_out(['a', 'b'], 0.01)) == 1
