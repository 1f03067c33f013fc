"""Attention: the values of nn.MultiheadAttention, and no matrix of all tokens by all tokens."""
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.clips import SMALL, build_clip, build_retriever, generic, random_frames
from tests.versions import needs
from vop_mm.models.backbones.attention import SelfAttention


def pair(width=24, heads=3, dtype=torch.float64):
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(width, heads, batch_first=True)
    nn.init.normal_(plain.in_proj_bias)
    return plain.to(dtype), SelfAttention(plain)


@pytest.mark.parametrize('grad', [True, False])
@pytest.mark.parametrize('masked', [True, False])
def test_values_and_gradients_of_multihead_attention(grad, masked):
    plain, ours = pair()
    x = torch.randn(2, 7, 24, dtype=torch.float64, requires_grad=grad)
    mask = full = None
    if masked:
        mask = torch.zeros(2, 1, 1, 7, dtype=torch.float64)
        mask[1, ..., 4:] = float('-inf')
        full = mask.expand(2, 3, 7, 7).flatten(0, 1)
    with torch.set_grad_enabled(grad):
        expected, given = plain(x, x, x, need_weights=False, attn_mask=full)[0], ours(x, x, x, attn_mask=mask)[0]
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-12)
    if grad:
        for a, b in zip(torch.autograd.grad(given.square().sum(), [x, *ours.parameters()]),
                        torch.autograd.grad(expected.square().sum(), [x, *plain.parameters()]), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_names_and_parameters_are_open_clips():
    clip = build_clip()
    assert {name for name, _ in clip.vision_blocks[0].attn.named_parameters()} == {
        name for name, _ in nn.MultiheadAttention(8, 2).named_parameters()}
    plain, ours = pair()
    assert all(a is b for a, b in zip(plain.parameters(), ours.parameters(), strict=True))


class Largest(TorchDispatchMode):
    """The most elements that any operation gives back."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                # what lies in memory: an expanded mask is not as large as it looks
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


FLASH = needs('torch', '2.5', 'no flash attention with a mask on a CPU')


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('masked', [False, pytest.param(True, marks=FLASH)])
def test_video_scope_needs_memory_that_grows_with_the_tokens(masked, train, autocast):
    """Twice the frames, twice the largest tensor; with an attention matrix anywhere it would be four times."""
    def largest(frames):
        arch = dict(SMALL, vision_cfg=dict(SMALL['vision_cfg'], patch_size=8))
        model = build_retriever(arch, video_prompts=[generic(4)], video_from=0, num_frames=64)
        videos = random_frames(2, frames)
        mask = torch.ones(2, frames, dtype=torch.bool)
        mask[1, 5:] = False
        with torch.set_grad_enabled(train), torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
            with Largest() as seen:
                out = model.vision_tower(model.backbone, videos, mask if masked else None)
                if train:
                    out.square().sum().backward()
        return seen.numel

    tokens = 64 * 17 + 4
    assert largest(64) == 2 * tokens * 4 * 64  # [videos, tokens, 4 C], in the MLP
    assert largest(64) / largest(32) < 2.1


def test_that_test_sees_an_attention_matrix(monkeypatch):
    def matrix(q, k, v, mask=None):
        return (q @ k.transpose(-1, -2) / q.shape[-1]**0.5).softmax(-1) @ v

    monkeypatch.setattr(torch.nn.functional, 'scaled_dot_product_attention', matrix)
    with pytest.raises(AssertionError):
        test_video_scope_needs_memory_that_grows_with_the_tokens(False, True, False)


def test_no_mask_is_built_when_no_frame_is_padded(monkeypatch):
    model = build_retriever(frame_prompts=[generic(4)], video_prompts=[generic(4)], video_from=1, num_frames=4)
    masks, plain = [], torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, 'scaled_dot_product_attention',
                        lambda q, k, v, mask=None: masks.append((q.shape[2], mask)) or plain(q, k, v, mask))
    model.encode_video(random_frames(2, 4))
    assert [mask for _, mask in masks] == [None] * 3  # one call a layer
    assert [tokens for tokens, _ in masks] == [1 + 4 + 4, 4 + 4 + 16, 4 + 4 + 16]
