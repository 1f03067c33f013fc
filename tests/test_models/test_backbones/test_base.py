"""The contract of a backbone: what open_clip's gives through it, and what is refused."""
import inspect

import open_clip
import pytest
import torch
from torch import nn

import demo.shapes.mini_clip  # noqa: F401 - registers MiniCLIP
from tests.clips import EOT, SMALL, build_clip, build_retriever, random_frames, random_tokens
from tests.versions import needs
from vop_mm.models.backbones import Backbone, OpenCLIP, Preprocessing, TextTower, VisionTower
from vop_mm.models.backbones.base import fingerprint
from vop_mm.registry import MODELS

CUSTOM_TEXT = dict(SMALL, custom_text=True, text_cfg=dict(SMALL['text_cfg'], proj_bias=True))


@pytest.mark.parametrize('arch', [SMALL, CUSTOM_TEXT], ids=['CLIP', 'CustomTextCLIP'])
def test_its_members_alone_make_what_open_clip_encodes(arch):
    """Embed, block, read out, written here once more without towers."""
    clip = build_clip(arch).eval()
    frames, tokens = random_frames(1, 3)[0], random_tokens([5, 12, 77])
    with torch.no_grad():
        cls, patches = clip.embed_frames(frames)
        x = torch.cat([cls, patches], dim=1)
        for layer in range(len(clip.vision_blocks)):
            x = clip.run_vision_block(layer, x, num_prefix=cls.shape[1])
        read = clip.read_frames(x[None, :, :1], x[None, :, 1:])[0]
        torch.testing.assert_close(read, clip.model.encode_image(frames), rtol=0, atol=1e-5)

        x = clip.embed_words(tokens) + clip.text_positions(tokens.shape[1])
        for layer in range(len(clip.text_blocks)):
            x = clip.run_text_block(layer, x)
        read = clip.read_text(x[torch.arange(3), clip.caption_ends(tokens)])
        torch.testing.assert_close(read, clip.model.encode_text(tokens), rtol=0, atol=1e-5)


def test_numbers_are_those_of_the_architecture():
    clip = build_clip()
    assert (clip.vision_width, clip.text_width, clip.embed_dim) == (64, 96, 48)
    assert (clip.context_length, clip.vocab_size, clip.end_of_text) == (77, 300, EOT)
    assert len(clip.vision_blocks) == 3 and len(clip.text_blocks) == 4 and clip.image_size == (32, 32)
    assert (clip.arch_name, clip.weights, clip.file) == ('custom', None, None)
    names = {id(p): name for name, p in clip.model.named_parameters()}
    assert {names[id(p)] for p in clip.projections} == {'visual.proj', 'text_projection'}
    assert names[id(clip.logit_scale)] == 'logit_scale'


def test_captions_are_cut_behind_the_last_end_if_nothing_there_matters():
    clip, tokens = build_clip(), random_tokens([5, 12, 9])
    assert clip.caption_ends(tokens).tolist() == [4, 11, 8]
    assert torch.equal(clip.cut_captions(tokens), tokens[:, :12])
    assert clip.cut_captions(tokens[:0]).shape == (0, 77)
    clip.causal_text = False
    assert clip.cut_captions(tokens) is tokens


# -- what is refused ---------------------------------------------------------------------------------------------------
ABSTRACT = sorted(name for name in dir(Backbone) if getattr(getattr(Backbone, name), '__isabstractmethod__', False))


@pytest.mark.parametrize('name', ABSTRACT)
def test_a_class_that_lacks_a_member_is_refused_by_its_name(name):
    members = {key: getattr(OpenCLIP, key) for key in ABSTRACT if key != name}
    kind = type('Lacking', (Backbone, ), dict(members, __init__=OpenCLIP.__init__))
    with pytest.raises(TypeError, match=f"Lacking .*abstract method '?{name}"):
        MODELS.build(dict(type=kind, arch=SMALL))


def test_a_number_that_is_not_given_is_named():
    kind = type('Silent', (OpenCLIP, ), dict(__init__=lambda self: Backbone.__init__(
        self, preprocessing=Preprocessing((8, 8)), text_width=8, embed_dim=8, context_length=8, vocab_size=8,
        end_of_text=7)))
    with pytest.raises(TypeError, match="'vision_width'"):
        MODELS.build(dict(type=kind))


def test_what_is_no_backbone_is_refused():
    with pytest.raises(TypeError, match='Linear is no Backbone'):
        MODELS.build(dict(type='TextVideoRetriever', backbone=nn.Linear(2, 2)))


# -- fingerprint -------------------------------------------------------------------------------------------------------
def test_the_fingerprint_is_of_the_weights_as_they_were_loaded(tmp_path):
    first = build_clip(rough=0)
    assert first.fingerprint == fingerprint(first.model.state_dict())
    torch.save(first.model.state_dict(), tmp_path / 'clip.pt')
    model = build_retriever(weights=str(tmp_path / 'clip.pt'), tuning=dict(type='AdapterTuning', beside='mlp'))
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(1)
    assert model.backbone.fingerprint == first.fingerprint  # neither adapters nor training change it


# -- preprocessing -----------------------------------------------------------------------------------------------------
@needs('open_clip_torch', '2.30', 'no preprocessing of a tag')
@pytest.mark.parametrize(('arch', 'tag'), [
    ('ViT-B-32-quickgelu', 'openai'), ('ViT-L-14', 'laion2b_s32b_b82k'), ('ViT-H-14-378-quickgelu', 'dfn5b'),
    ('ViT-B-16', 'datacomp_xl_s13b_b90k')])
def test_preprocessing_of_a_tag_is_what_open_clip_would_use(arch, tag):
    """As its own factory would set it on the model, without weights."""
    found = OpenCLIP.preprocessing_of(arch, tag)
    own = open_clip.get_pretrained_cfg(arch, tag)
    assert found.size == (open_clip.get_model_config(arch)['vision_cfg']['image_size'], ) * 2
    assert (found.mean, found.std) == (tuple(own['mean']), tuple(own['std']))
    assert (found.interpolation, found.resize, found.assumed) == (own['interpolation'], own['resize_mode'], False)
    assert found.tokenizer == dict(type='CLIPTokenizer')


@pytest.mark.parametrize('weights', [None, 'some/file.pt'])
def test_of_other_weights_openais_is_assumed(weights):
    found = OpenCLIP.preprocessing_of(dict(SMALL, vision_cfg=dict(image_size=(32, 48))), weights)
    assert found == Preprocessing((32, 48), open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD, assumed=True)
    assert OpenCLIP.preprocessing_of('MiniCLIP', weights).tokenizer is None  # another vocabulary than CLIP's


def test_unknown_ways_of_resizing_are_refused():
    with pytest.raises(ValueError, match=r"resize must be one of \('shortest', 'squash'\), got 'longest'"):
        Preprocessing((8, 8), resize='longest')


def test_frames_are_normalized_as_the_backbone_declares():
    model = build_retriever()
    model.backbone.preprocessing = Preprocessing((32, 32), mean=(0.5, 0.4, 0.3), std=(0.2, 0.5, 1.))
    model.data_preprocessor.prepare(model.backbone)
    white = torch.full((3, 2, 2), 255, dtype=torch.uint8)
    torch.testing.assert_close(model.data_preprocessor.normalize(white)[:, 0, 0], torch.tensor([2.5, 1.2, 0.7]))
    given = build_retriever(data_preprocessor=dict(type='VideoTextPreprocessor', mean=[0.] * 3, std=[1.] * 3))
    assert given.data_preprocessor.normalize(white).eq(1).all()


# -- towers ------------------------------------------------------------------------------------------------------------
def test_towers_know_the_contract_only():
    for tower in (VisionTower, TextTower):
        assert inspect.signature(tower.forward).parameters['backbone'].annotation is Backbone


class WithoutCLS(OpenCLIP):
    """Frames are read as the mean of their patches."""

    def embed_frames(self, frames):
        cls, patches = super().embed_frames(frames)
        return cls[:, :0], patches

    def read_frames(self, cls, patches):
        assert cls.shape[2] == 0
        return self.model.visual.ln_post(patches.mean(2)) @ self.model.visual.proj


@pytest.mark.parametrize('video_from', [1, 3])
def test_a_tower_without_cls_reads_its_patches(video_from):
    """Single frames against a loop of their own; padding changes nothing where frames are joined."""
    torch.manual_seed(0)
    clip = WithoutCLS(SMALL)
    tower = VisionTower(depth=3, width=64, num_frames=4, video_from=video_from)
    frames = random_frames(2, 4)
    with torch.no_grad():
        found = tower(clip, frames)
        if video_from == 3:
            x = clip.embed_frames(frames.flatten(0, 1))[1]
            for layer in range(3):
                x = clip.run_vision_block(layer, x, num_prefix=0)
            expected = clip.model.visual.ln_post(x.mean(1)) @ clip.model.visual.proj
            torch.testing.assert_close(found.flatten(0, 1), expected, rtol=0, atol=1e-5)
        else:
            mask = torch.tensor([[True, True, True, False]] * 2)
            padded = tower(clip, frames, mask)[:, :3]
            torch.testing.assert_close(padded, tower(clip, frames[:, :3]), rtol=0, atol=1e-5)
            assert (padded - found[:, :3]).abs().max() > 1e-3
