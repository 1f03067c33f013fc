"""Below the first layer that has something to learn, a training step keeps nothing for the way back."""
from collections import Counter

import pytest
import torch

from tests.clips import build_retriever, generic, random_frames, random_tokens

DEPTH, FRAMES = 4, 3
PROMPTS = {layers: dict(frame_prompts=[generic(4, layers=layers)], text_prompts=[generic(4, layers=layers)])
           for layers in ((0, 4), (2, 4), (3, 4))}
# method, and the first layer of either tower that keeps something
METHODS = [(PROMPTS[0, 4], 0), (PROMPTS[2, 4], 2), (PROMPTS[3, 4], 3), (dict(tuning=dict(type='PartialTuning')), 3),
           (dict(tuning=dict(type='ProjTuning')), DEPTH), (dict(tuning=dict(type='FullTuning')), 0)]
IDS = ['prompts everywhere', 'prompts in 2..3', 'prompts in 3', 'Partial', 'Proj', 'Full']


def step(changes):
    """A forward pass of the mini CLIP; for each tower and layer, the bytes kept while it ran, and its output."""
    model = build_retriever('MiniCLIP', num_frames=FRAMES, **changes).train()
    weights = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    running, kept, outputs = [None], {}, {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept.setdefault(storage.data_ptr(), (running[0], storage.nbytes()))
        return tensor

    for tower, blocks in (('vision', model.backbone.vision_blocks), ('text', model.backbone.text_blocks)):
        assert len(blocks) == DEPTH
        for layer, block in enumerate(blocks):
            block.register_forward_pre_hook(lambda module, args, here=(tower, layer): running.__setitem__(0, here))

            def done(module, args, output, here=(tower, layer)):
                outputs[here], running[0] = output, None

            block.register_forward_hook(done)
    frames, tokens = random_frames(2, FRAMES, size=40), random_tokens([9, 12], width=24, sot=2, eot=38).clamp_(max=38)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(frames, tokens, mode='loss')['loss']  # as long as this lives, no storage is used again
    loss.backward()
    sizes = Counter()
    for place, size in kept.values():
        sizes[place] += size
    return sizes, outputs


@pytest.mark.parametrize(('changes', 'first'), METHODS, ids=IDS)
def test_no_layer_below_the_first_that_learns_keeps_anything(changes, first):
    sizes, outputs = step(changes)
    for tower in ('vision', 'text'):
        assert [outputs[tower, layer].requires_grad for layer in range(DEPTH)] == [i >= first for i in range(DEPTH)]
        assert [sizes[tower, layer] > 0 for layer in range(DEPTH)] == [i >= first for i in range(DEPTH)]


def test_half_the_layers_keep_half_the_activations():
    everywhere, upper = (step(PROMPTS[layers])[0] for layers in ((0, 4), (2, 4)))
    for tower in ('vision', 'text'):
        in_blocks = [sum(sizes[tower, layer] for layer in range(DEPTH)) for sizes in (everywhere, upper)]
        assert in_blocks[1] / in_blocks[0] == pytest.approx(0.5, abs=0.02)
    assert upper.total() < 0.6 * everywhere.total()
