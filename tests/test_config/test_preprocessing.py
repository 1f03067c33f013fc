"""What pipelines leave to the backbone, and where config and backbone disagree."""
import warnings

import pytest

from vop_mm.config import read_config
from vop_mm.models.backbones import OpenCLIP, Preprocessing

MSRVTT, DEMO = 'configs/vop/vop_msrvtt.py', 'configs/vop/vop_demo.py'
BARE = [dict(type='ReadClip', num_frames=12), dict(type='TokenizeText'), dict(type='PackVideoText')]
SQUASHED = {'model.backbone.arch': 'ViT-H-14-378-quickgelu', 'model.backbone.weights': 'dfn5b'}

SIGLIP2 = {'model.backbone.arch': 'ViT-B-16-SigLIP2', 'model.backbone.weights': 'webli'}


@pytest.fixture(autouse=True)
def nothing_is_warned_about():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def bare(**changes):
    return read_config(MSRVTT, {'train_pipeline': BARE, 'test_pipeline': BARE, **changes})


def steps(cfg, split='test'):
    return [dict(step) for step in cfg[f'{split}_dataloader'].dataset.pipeline]


def declaring(monkeypatch, **declared):
    monkeypatch.setattr(OpenCLIP, 'preprocessing_of', classmethod(lambda cls, **_: Preprocessing(**declared)))


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_a_pipeline_that_says_nothing_is_completed(split):
    """OpenAI's preprocessing: what the data sets' configs state themselves."""
    assert steps(bare(), split) == [
        dict(type='ReadClip', num_frames=12, size=224), dict(type='mmaction.CenterCrop', crop_size=224),
        dict(type='TokenizeText', tokenizer=dict(type='CLIPTokenizer')), dict(type='PackVideoText')]
    assert steps(read_config(bare()), split) == steps(bare(), split)  # read once more, as tools do


def test_a_crop_that_is_there_is_not_added_again():
    flip = dict(type='mmaction.Flip', flip_ratio=0.5)
    pipeline = [BARE[0], flip, dict(type='mmaction.CenterCrop'), *BARE[1:]]
    assert steps(bare(train_pipeline=pipeline), 'train')[:3] == [
        dict(type='ReadClip', num_frames=12, size=224), flip, dict(type='mmaction.CenterCrop', crop_size=224)]


def test_size_and_mode_are_those_of_the_weights():
    assert steps(bare(**SQUASHED))[:2] == [dict(type='ReadClip', num_frames=12, size=(378, 378)),
                                           dict(type='TokenizeText', tokenizer=dict(type='CLIPTokenizer'))]


def test_steps_without_a_size_get_it(monkeypatch):
    pipeline = [dict(type='ReadClip', num_frames=12, size=40), dict(type='mmaction.CenterCrop'),
                dict(type='ResizeFrames'), *BARE[1:]]
    declaring(monkeypatch, size=(32, 48), interpolation='bilinear', tokenizer=dict(type='WordTokenizer', vocab='x'))
    found = steps(read_config(MSRVTT, {'train_pipeline': pipeline, 'test_pipeline': pipeline}))
    assert found == [dict(type='ReadClip', num_frames=12, size=40, interpolation='bilinear'),
                     dict(type='mmaction.CenterCrop', crop_size=(48, 32)),
                     dict(type='ResizeFrames', size=(32, 48), interpolation='bilinear'),
                     dict(type='TokenizeText', tokenizer=dict(type='WordTokenizer', vocab='x')),
                     dict(type='PackVideoText')]


def test_a_crop_that_would_depend_on_the_video_is_refused(monkeypatch):
    declaring(monkeypatch, size=(32, 48))
    with pytest.raises(ValueError, match=r'frames of \(32, 48\) pixels can.t be cropped from their short side'):
        bare()


@pytest.mark.parametrize('config', [MSRVTT, DEMO])
def test_configs_of_this_project_are_left_as_they_are(config):
    """Nothing is filled in, and nothing disagrees: mini CLIP's file doesn't say how its frames were made."""
    before = read_config(config)
    for split in ('train', 'val', 'test'):
        assert 'interpolation' not in str(steps(before, split))
    assert 'mean' not in str(before.model)


@pytest.fixture
def dumped(tmp_path):
    """A config of an older run, in which everything is said."""

    def write(base=MSRVTT, **changes):
        read_config(base, changes).dump(tmp_path / 'dumped.py')
        return tmp_path / 'dumped.py'
    return write


TOKENIZER = 'test_dataloader.dataset.pipeline.2.tokenizer'


@pytest.mark.parametrize(('changes', 'says'), [
    (SQUASHED, r'size \(224, 224\), the model takes \(378, 378\); .* resized by .shortest., the weights want .squash.'),
    ({'model.data_preprocessor.mean': [0.5, 0.5, 0.5]}, r'mean is \(0.5, 0.5, 0.5\), the weights want \(0.48145466, '),
    ({TOKENIZER: dict(type='WordTokenizer', vocab='x')}, 'is WordTokenizer, the weights want CLIPTokenizer'),
    ({f'{TOKENIZER}.context_length': 32}, 'the tokenizer has the context_length 32, the weights want 77'),
    ({'test_dataloader.dataset.pipeline.0.interpolation': 'bilinear'},
     "interpolation is 'bilinear', the weights want 'bicubic'"),
    (SIGLIP2, 'the tokenizer is CLIPTokenizer, the weights want HFTokenizer; '
              "frames are resized by 'shortest', the weights want 'squash'"),
], ids=['size and mode', 'mean', 'tokenizer', 'length', 'interpolation', 'another backbone'])
def test_a_config_that_disagrees_gets_one_warning_with_both_values(dumped, changes, says):
    path = dumped()
    with pytest.warns(UserWarning, match=f'the config and its backbone, OpenCLIP, disagree: .*{says}') as found:
        read_config(path, changes)
    assert len(found) == 1


def test_tokenizers_of_the_same_type_are_compared_by_their_arguments(dumped):
    path = dumped(**SIGLIP2)
    read_config(path)
    with pytest.warns(UserWarning, match="disagree: the tokenizer has the name 'timm/ViT-B-16-SigLIP2', the weights "
                                         "want 'timm/ViT-B-16-SigLIP'$"):
        read_config(path, {**SIGLIP2, 'model.backbone.arch': 'ViT-B-16-SigLIP'})


def test_of_weights_in_a_file_only_the_size_is_known(dumped):
    own = {'model.backbone.weights': 'some/laion.pt', 'model.data_preprocessor.mean': [0.5, 0.5, 0.5],
           'test_dataloader.dataset.pipeline.0.interpolation': 'bilinear'}
    read_config(dumped(), own)
    with pytest.warns(UserWarning, match=r'disagree: frames have the size \(224, 224\), the model takes \(336, 336\)$'):
        read_config(dumped(), {**own, 'model.backbone.arch': 'ViT-L-14-336-quickgelu'})
