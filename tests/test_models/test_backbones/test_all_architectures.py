"""Every architecture of open_clip that needs no hub: prompts in both towers, or a vision tower as a whole."""
import collections
import json
from pathlib import Path

import open_clip
import pytest
import torch

from tests.clips import build_retriever, generic

FOLDER = Path(open_clip.__file__).with_name('model_configs')
ALL = sorted(open_clip.list_models())


def of_a_hub(arch):
    return 'hf_model_name' in json.loads((FOLDER / f'{arch}.json').read_text())['text_cfg']


@pytest.fixture(scope='module')
def kinds():
    """What became of each of them on the meta device: 'prompts', 'whole' or a message."""
    found = {}
    for arch in ALL:
        if of_a_hub(arch):  # tried in test_hugging_face_text.py, where there is such a tower
            continue
        with torch.device('meta'):
            try:
                model = build_retriever(arch, rough=0, text_prompts=[generic(4)], tuning=dict(type='PromptTuning'))
                found[arch] = 'prompts' if len(model.backbone.vision_blocks) else 'whole'
                assert len(model.backbone.text_blocks)
            except ValueError as e:
                found[arch] = str(e)
    return found


def test_none_that_open_clip_builds_offline_is_refused(kinds):
    assert len(ALL) >= 144 and len(kinds) == len(ALL) - 10  # open_clip 3.3 has 144
    counts = collections.Counter(kinds.values())
    assert set(counts) == {'prompts', 'whole'}, counts
    # as counted by hand in the configs: ConvNeXt 11, ResNet 10, FastViT 6, Swin, relative positions
    assert counts['whole'] == 29


@pytest.mark.parametrize('prefix', ['RN', 'convnext', 'MobileCLIP-S', 'MobileCLIP2-S', 'swin', 'vit_relpos'])
def test_whole_towers(kinds, prefix):
    assert {kind for arch, kind in kinds.items() if arch.startswith(prefix)} == {'whole'}
