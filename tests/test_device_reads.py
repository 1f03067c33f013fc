"""Reads of the device are found, whatever form they take, and reads of the host are not taken for them."""
import numpy as np
import pytest
import torch
from torch import nn

from tests.device_reads import DeviceReads

READS = {
    'item': lambda x: x[0].item(), 'float': lambda x: float(x.detach().sum()), 'bool': lambda x: bool((x > 1).any()),
    'branch': lambda x: 1 if x[0] > 0 else 2, 'index': lambda x: range(x.long()[1]), 'format': lambda x: f'{x[0]:.2f}',
    'contains': lambda x: 1. in x, 'tolist': lambda x: x.tolist(), 'numpy': lambda x: x.detach().numpy(),
    'array': lambda x: np.asarray(x.detach()), 'cpu': lambda x: x.cpu(), 'mask': lambda x: x[x > 1],
    'masked_select': lambda x: x.masked_select(x > 1), 'nonzero': lambda x: x.nonzero(),
    'where': lambda x: torch.where(x > 1), 'equal': lambda x: torch.equal(x, x), 'allclose': lambda x: x.allclose(x),
    'unique': lambda x: x.unique(), 'bincount': lambda x: x.long().bincount(),
    'repeat_interleave': lambda x: x.repeat_interleave(x.long()),
}
NO_READS = {
    'arithmetic': lambda x: (2 * x).softmax(0).sum(), 'where': lambda x: torch.where(x > 1, x, 0),
    'masked_fill': lambda x: x.masked_fill(x > 1, 0), 'rows': lambda x: x[torch.tensor([2, 0])],
    'gather': lambda x: x.gather(0, x.long()), 'repeat': lambda x: x.repeat_interleave(2), 'shape': lambda x: len(x),
    'backward': lambda x: torch.autograd.grad((x * x).sum(), x), 'clip': lambda x: nn.utils.clip_grad_norm_([x], 1.),
}


@pytest.fixture
def model():
    """Four numbers that count as being on a device."""
    model = nn.Module()
    model.weight = nn.Parameter(torch.arange(4.))
    return model


@pytest.mark.parametrize('name', READS)
def test_finds(model, name):
    with DeviceReads(model) as reads:
        READS[name](model.weight)
    assert reads.count == 1
    line, = reads.where
    assert 'tests/test_device_reads.py:' in line


@pytest.mark.parametrize('name', NO_READS)
def test_does_not_find(model, name):
    with DeviceReads(model) as reads:
        NO_READS[name](model.weight)
    assert reads.count == 0, reads.where


@pytest.mark.parametrize('name', READS)
def test_what_is_on_the_host_may_be_read(model, name):
    host = torch.arange(4., requires_grad=True)
    with DeviceReads(model) as reads:
        READS[name](host)
    assert reads.count == 0, reads.where


def test_finds_what_is_computed_from_it_and_gradients(model):
    with DeviceReads(model) as reads:
        (3 * model.weight[1:]).sum().backward()
        assert reads.count == 0
        assert model.weight.grad.tolist() == [0, 3, 3, 3]
    assert reads.where.total() == reads.count == 1
    model.weight.grad.tolist()
    assert reads.count == 1  # nobody counts any more


def test_what_was_copied_to_the_host_is_on_the_host(model):
    with DeviceReads(model) as reads:
        host = model.weight.detach().cpu()
        assert (host + 1).tolist() == [1, 2, 3, 4] and float(host[1]) == 1
    assert reads.count == 1


def test_finds_what_is_put_there_and_what_a_data_preprocessor_makes(model):
    model.data_preprocessor = nn.Identity()
    host = torch.arange(4.)
    with DeviceReads(model) as reads:
        host.tolist()
        batch = model.data_preprocessor(dict(frames=[host]))
        batch['frames'][0].tolist()
        assert reads.count == 1
        reads.put([other := torch.ones(2)])
        other[0].item()
    assert reads.count == 2
    assert not model.data_preprocessor._forward_hooks
