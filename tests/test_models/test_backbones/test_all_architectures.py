"""Every architecture of open_clip that needs no hub: prompts in both towers, or a vision tower as a whole."""
import collections
import json
from pathlib import Path

import open_clip
import pytest
import torch

from tests.clips import build_clip
from tests.tools import ROOT

FOLDER = Path(open_clip.__file__).with_name('model_configs')
ALL = sorted(open_clip.list_models())
ON_A_HUB = [arch for arch in ALL if 'hf_model_name' in json.loads((FOLDER / f'{arch}.json').read_text())['text_cfg']]


@pytest.fixture(scope='module')
def kinds():
    """Number of blocks and kind of both towers of each, built on the meta device; or a message."""
    found = {}
    for arch in ALL:
        if arch in ON_A_HUB:  # such towers are in test_hugging_face_text.py
            continue
        with torch.device('meta'):
            try:
                clip = build_clip(arch, rough=0)
                found[arch] = (len(clip.vision_blocks), len(clip.text_blocks), clip.vision_kind, clip.text_kind)
            except ValueError as e:
                found[arch] = str(e)
    return found


@pytest.mark.slow
def test_none_that_open_clip_builds_offline_is_refused(kinds):
    assert len(kinds) >= 134 and len(ON_A_HUB) <= 12
    assert not [said for said in kinds.values() if isinstance(said, str)]
    assert all(text > 0 for _, text, _, _ in kinds.values())
    as_a_whole = [arch for arch, (vision, *_) in kinds.items() if not vision]
    families = collections.Counter(next(family for family in (
        'RN', 'convnext', 'MobileCLIP-S', 'MobileCLIP2-S', 'swin', 'vit_relpos') if arch.startswith(family))
        for arch in as_a_whole)
    assert families == {'RN': 10, 'convnext': 11, 'MobileCLIP-S': 2, 'MobileCLIP2-S': 4, 'swin': 1, 'vit_relpos': 1}


@pytest.mark.slow
@pytest.mark.skipif(open_clip.__version__ != '3.3.0', reason='the table of the page was made with 3.3.0')
def test_the_page_has_them_all(kinds):
    text = (ROOT / 'docs/en/use_another_clip.md').read_text()
    table = text.partition('<!-- python tools/analysis_tools/list_backbones.py -->')[2].partition('<!-- end -->')[0]
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines() if line[:1] == '|']
    shown = {(vision, said): int(number) for number, vision, said, *_ in rows[2:] if vision != '-'}
    assert shown == collections.Counter((vision, said) for _, _, vision, said in kinds.values())
    works = dict(zip(rows[0][4:], zip(*(row[4:] for row in rows[2:] if row[1] != '-'))))
    whole = tuple('no' if 'as a whole' in row[1] else 'yes' for row in rows[2:] if row[1] != '-')
    for title, column in works.items():  # what is built and run by the tool, against what is to be expected
        assert column == (whole if title in ('visual prompts', 'VoP, ^P, ^C, ^F', 'Adapter, Partial') else
                          ('yes', ) * len(whole))
