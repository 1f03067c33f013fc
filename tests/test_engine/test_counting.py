"""Parameters, operations and checkpoint sizes of methods on towers that are not CLIP's, against counts by hand."""
import io

import pytest
import torch
from mmengine.config import Config

from tests.backbone_kinds import BLOCKS, KINDS
from tests.clips import build_retriever, generic
from tests.test_tools.test_count_parameters import transformer
from tests.versions import needs
from vop_mm.engine.checkpoint import describe
from vop_mm.engine.counting import checkpoint_bytes, count_as_paper, count_flops, count_trainable
from vop_mm.models.tuning import trainable_state_dict

pytestmark = needs('open_clip_torch', '3.3', 'not all kinds of towers')
VOP = dict(frame_prompts=[generic(8)], text_prompts=[generic(8)])
# layers and widths of the vision and the text tower, from open_clip's and timm's definitions
COUNTS = {'PE-Core-B-16': 12 * 8 * 768 + 24 * 8 * 1024, 'ViT-B-16-SigLIP2': 12 * 8 * 768 + 12 * 8 * 768,
          'EVA02-B-16': 12 * 8 * 768 + 12 * 8 * 512, 'ViTamin-B': 14 * 8 * 768 + 12 * 8 * 512}
CFG = Config(dict(method='VoP', model=VOP))


def on_meta(arch, **changes):
    with torch.device('meta'):
        return build_retriever(arch, rough=0, **changes)


@pytest.mark.parametrize('arch', COUNTS)
def test_parameters_and_checkpoint_of_vop(arch):
    model, expected = on_meta(arch, **VOP), COUNTS[arch]
    assert count_trainable(model) == count_as_paper(model) == expected
    assert 4 * expected < checkpoint_bytes(model, CFG) < 4 * expected + 10_000


def test_pe_core_has_the_papers_method_in_more_parameters():
    assert COUNTS['PE-Core-B-16'] == 270_336


@pytest.mark.parametrize('kind', ['SigLIP', 'PE-Core', 'CoCa', 'ResNet'])
def test_a_checkpoint_is_as_large_as_its_file(kind):
    """Buffers of the backbone are not in it."""
    cfg = VOP if kind in BLOCKS else dict(tuning=dict(type='BiasTuning'))
    model = build_retriever(KINDS[kind], **cfg)
    file = io.BytesIO()
    torch.save(dict(meta=dict(vop_mm=describe(model, CFG), cfg=CFG.pretty_text),
                    state_dict=trainable_state_dict(model)), file)
    assert checkpoint_bytes(on_meta(KINDS[kind], **cfg), CFG) == file.tell()


@pytest.mark.parametrize('kind', KINDS)
def test_operations_are_counted_without_computing_them(kind):
    model = on_meta(KINDS[kind], **(VOP if kind in BLOCKS else dict(text_prompts=[generic(8)])))
    assert count_flops(model, 1, training=True) > 0


def test_operations_are_those_counted_by_hand():
    """Patches and blocks of PE-Core-B-16; its read-out takes one percent."""
    by_hand = 2 * 4 * 196 * 768 * 3 * 16 * 16 + transformer(197 + 8, 768, 12, 4) + transformer(32, 1024, 24, 1)
    assert 1 < count_flops(on_meta('PE-Core-B-16', **VOP), num_frames=4) / by_hand < 1.02
