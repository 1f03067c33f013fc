"""The preprocessing that goes with weights: by tag, beside a file, and what is assumed of a file alone."""
import copy
import json

import open_clip
import pytest
import torch

from tests.clips import SMALL, build_clip
from tests.versions import needs
from vop_mm.models.backbones import OpenCLIP, Preprocessing

OF_TAGS = open_clip.list_pretrained()


def of_record(arch, record):
    return Preprocessing(
        size=(open_clip.get_model_config(arch)['vision_cfg'].get('image_size', 224), ) * 2, mean=tuple(record['mean']),
        std=tuple(record['std']), interpolation=record['interpolation'], resize=record['resize_mode'],
        tokenizer=OpenCLIP.preprocessing_of(arch).tokenizer)


@needs('open_clip_torch', '2.30', 'no preprocessing of a tag')
def test_preprocessing_of_every_tag_is_what_open_clip_records():
    for arch, tag in OF_TAGS:
        assert OpenCLIP.preprocessing_of(arch, tag) == of_record(arch, open_clip.get_pretrained_cfg(arch, tag)), (
            arch, tag)


@needs('open_clip_torch', '3.0', 'other tags')
@pytest.mark.parametrize(('arch', 'tag', 'values'), [
    ('ViT-L-14', 'laion2b_s32b_b82k', ((224, 224), (0.5, ) * 3, (0.5, ) * 3, 'bicubic', 'shortest')),
    ('ViT-B-16-SigLIP-384', 'webli', ((384, 384), (0.5, ) * 3, (0.5, ) * 3, 'bicubic', 'squash')),
    ('PE-Core-B-16', 'meta', ((224, 224), (0.5, ) * 3, (0.5, ) * 3, 'bilinear', 'squash')),
    ('MobileCLIP-B', 'datacompdr', ((224, 224), (0., ) * 3, (1., ) * 3, 'bilinear', 'shortest')),
    ('ViT-L-14-CLIPA-336', 'datacomp1b', ((336, 336), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 'bilinear',
                                          'squash'))])
def test_preprocessing_is_that_of_open_clips_own_model(monkeypatch, arch, tag, values):
    """As its factory sets it, with weights that are not loaded."""
    monkeypatch.setattr(open_clip.factory, 'download_pretrained', lambda *_, **__: 'nothing.pt')
    with torch.device('meta'):
        own = open_clip.get_model_preprocess_cfg(open_clip.create_model(arch, tag, load_weights=False,
                                                                              device='meta'))
    found = OpenCLIP.preprocessing_of(arch, tag)
    assert (found.size, found.mean, found.std, found.interpolation, found.resize) == values
    assert (found.mean, found.std, found.interpolation, found.resize) == (
        tuple(own['mean']), tuple(own['std']), own['interpolation'], own['resize_mode'])
    size = own['size']
    assert found.size == (tuple(size) if isinstance(size, (tuple, list)) else (size, size)) and not found.assumed


@needs('open_clip_torch', '3.0', 'other tags')
@pytest.mark.parametrize('weights', [None, 'some/file.pt'])
def test_values_that_all_tags_share_are_assumed_of_a_file(weights):
    for arch in sorted({arch for arch, _ in OF_TAGS}):
        records = [open_clip.get_pretrained_cfg(arch, tag) for tag in open_clip.list_pretrained_tags_by_model(arch)]
        if all(record == dict(records[0], url=record['url'], hf_hub=record['hf_hub']) for record in records):
            expected = copy.copy(of_record(arch, records[0]))
            object.__setattr__(expected, 'assumed', True)
            assert OpenCLIP.preprocessing_of(arch, weights) == expected, arch
    found = OpenCLIP.preprocessing_of('ViT-H-14', weights)  # one of its tags was trained on squashed frames
    assert (found.resize, found.mean, found.assumed) == ('shortest', open_clip.OPENAI_DATASET_MEAN, True)
    found = OpenCLIP.preprocessing_of('ViT-L-14', weights)  # one of its tags has other means
    assert (found.mean, found.std) == (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)


RECORD = dict(size=[64, 64], mode='RGB', mean=[0.5, 0.4, 0], std=[0.25, 0.5, 1], interpolation='bilinear',
              resize_mode='squash', fill_color=0)


def beside(folder, content):
    """A weights file with open_clip's config beside it."""
    torch.save(build_clip(rough=0).model.state_dict(), folder / 'open_clip_model.pt')
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / 'open_clip_config.json').write_text(text)
    return str(folder / 'open_clip_model.pt')


def test_the_config_beside_a_file_says_how_its_frames_were_made(tmp_path, monkeypatch):
    weights = beside(tmp_path, dict(model_cfg=SMALL, preprocess_cfg=RECORD))
    expected = Preprocessing((32, 32), (0.5, 0.4, 0), (0.25, 0.5, 1), 'bilinear', 'squash')
    assert OpenCLIP.preprocessing_of(SMALL, weights) == OpenCLIP(SMALL, weights).preprocessing == expected
    monkeypatch.setenv('HOME', str(tmp_path))
    assert OpenCLIP.preprocessing_of(SMALL, '~/open_clip_model.pt') == expected
    assert OpenCLIP.preprocessing_of(SMALL).assumed and OpenCLIP.preprocessing_of('ViT-B-32', 'openai').mean[0] < 0.49


def test_what_the_config_beside_a_file_leaves_out_is_open_clips_default(tmp_path):
    own = open_clip.transform.PreprocessCfg()
    found = OpenCLIP.preprocessing_of(SMALL, beside(tmp_path, dict(model_cfg=SMALL, preprocess_cfg={})))
    assert (found.mean, found.std, found.interpolation, found.resize, found.assumed) == (
        own.mean, own.std, own.interpolation, own.resize_mode, False)
    assert OpenCLIP.preprocessing_of(SMALL, beside(tmp_path, dict(model_cfg=SMALL))).assumed


@pytest.mark.parametrize(('content', 'says'), [
    ('[1]', 'not an open_clip config'), ('{"a": 1', 'Expecting'), (' ' * 100_001, 'not an open_clip config'),
    ('{"preprocess_cfg": {"mean": [NaN, 0, 0]}}', 'preprocess_cfg.mean is .*not three numbers'),
    (dict(preprocess_cfg=[1]), 'preprocess_cfg is not a dict'),
    *((dict(preprocess_cfg=dict(RECORD, **{key: value})), f'preprocess_cfg.{key} is ') for key, value in [
        ('mean', 0.5), ('mean', [0.5, 0.5]), ('mean', ['a', 'b', 'c']), ('mean', [1e9, 0, 0]), ('std', [0, 1, 1]),
        ('std', [True] * 3), ('mean', None), ('interpolation', 'random'), ('interpolation', ['bicubic']),
        ('resize_mode', 'longest'), ('resize_mode', 'a\nb' * 999), ('resize_mode', None)])])
def test_a_config_of_another_form_beside_a_file_is_refused_in_one_line(tmp_path, content, says):
    with pytest.raises(ValueError, match=f'open_clip_config.json: .*{says}') as error:
        OpenCLIP.preprocessing_of(SMALL, beside(tmp_path, content))
    assert '\n' not in str(error.value) and len(str(error.value)) < 400
