"""Text towers of Hugging Face: from a local folder, as a whole; where there is none, a line says so."""
import importlib.util
import json

import pytest
import torch

from tests.backbone_kinds import LENGTH
from tests.clips import SMALL, build_retriever, generic, random_frames, roughen
from tests.hf_tokenizers import write_tokenizer

transformers = pytest.importorskip('transformers')

CONFIGS = dict(  # repository that open_clip names: config of a small model of that family, pooler
    roberta=('roberta-base', transformers.RobertaConfig, dict(
        vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=40, pad_token_id=1), 'mean_pooler'),
    xlm_roberta=('xlm-roberta-base', transformers.XLMRobertaConfig, dict(
        vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=40, pad_token_id=1), 'mean_pooler'),
    nllb=('facebook/nllb-200-distilled-600M', transformers.M2M100Config, dict(
        vocab_size=120, d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=40), 'cls_pooler'))


def arch(kind):
    name, _, _, pooler = CONFIGS[kind]
    return dict(SMALL, text_cfg=dict(hf_model_name=name, hf_tokenizer_name=name, hf_proj_type='linear',
                                     hf_pooler_type=pooler, context_length=LENGTH))


@pytest.fixture(params=CONFIGS)
def tower(request, tmp_path):
    """A retriever with a tower of the kind, and open_clip's own model with the same weights."""
    from open_clip.model import CustomTextCLIP
    _, config, numbers, _ = CONFIGS[request.param]
    config(**numbers).save_pretrained(tmp_path)
    write_tokenizer(tmp_path, 'roberta')
    model = build_retriever(rough=0, backbone_options=dict(hf_folder=str(tmp_path)), arch=arch(request.param),
                            frame_prompts=[generic(2)])
    roughen(model.backbone, 0.02)
    cfg = arch(request.param)
    cfg['text_cfg'].update(hf_model_name=str(tmp_path), hf_model_pretrained=False)
    plain = CustomTextCLIP(**cfg).eval()
    plain.load_state_dict(model.backbone.model.state_dict())
    return model, plain


def captions(pad):
    tokens = torch.randint(10, 100, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    for row, length in zip(tokens, (4, 9, LENGTH)):
        row[0], row[length - 1], row[length:] = 0, 2, pad
    return tokens


def test_captions_are_open_clips_in_value_and_gradient(tower):
    model, plain = tower
    tokens = captions(model.backbone.model.text.config.pad_token_id)
    model.backbone.requires_grad_(True)
    with torch.random.fork_rng():
        ours, theirs = model.encode_text(tokens), plain.encode_text(tokens, normalize=True)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    ours.square().sum().add(ours[:, 0].sum()).backward()
    theirs.square().sum().add(theirs[:, 0].sum()).backward()
    expected = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    assert expected
    for name, p in model.backbone.model.named_parameters():
        if name in expected:
            torch.testing.assert_close(p.grad, expected[name], rtol=0, atol=1e-5)


def test_nothing_is_dropped_in_training(tower):
    model, plain = tower
    assert model.backbone.model.text.config.to_dict().get('hidden_dropout_prob', 0.1) > 0
    tokens = captions(model.backbone.model.text.config.pad_token_id)
    model.train()
    with torch.no_grad():
        torch.testing.assert_close(model.encode_text(tokens), plain.encode_text(tokens, normalize=True),
                                   rtol=0, atol=1e-5)


def test_words_end_where_the_caption_ends(tower):
    model, _ = tower
    tokens = captions(model.backbone.model.text.config.pad_token_id)
    _, words, mask = model.text_tower(model.backbone, tokens, words=True)
    assert words.shape == (3, LENGTH, 48) and mask.sum(1).tolist() == [4, 9, LENGTH]
    assert not words[~mask].any() and model.backbone.cut_captions(tokens) is tokens
    assert model.encode_video(random_frames(1, 2)).shape == (1, 48)  # with prompts


def test_text_prompts_are_refused_by_name(tmp_path):
    name, config, numbers, _ = CONFIGS['roberta']
    config(**numbers).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r'text_prompts can.t be used: the text tower of custom has no .*RobertaModel'):
        build_retriever(rough=0, backbone_options=dict(hf_folder=str(tmp_path)), arch=arch('roberta'),
                        text_prompts=[generic(2)])


def test_tokenizer_of_the_same_folder(tower):
    tokenizer = tower[0].backbone.preprocessing.tokenizer
    assert tokenizer['type'] == 'HFTokenizer' and tokenizer['context_length'] == LENGTH
    assert tokenizer['name'].startswith('/')


@pytest.mark.parametrize(('content', 'says'), [
    (None, 'config of the text tower of custom not found'), ('{', 'config.json: '), ('[]', 'not a config of Hugging'),
    (json.dumps(dict(model_type='roberta', auto_map=dict(AutoModel='x.y'))), 'asks for code')])
def test_folders_that_can_t_be_used(tmp_path, content, says):
    if content is not None:
        (tmp_path / 'config.json').write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        build_retriever(rough=0, backbone_options=dict(hf_folder=str(tmp_path)), arch=arch('roberta'))


def test_without_a_hub_and_without_transformers(monkeypatch):
    import huggingface_hub
    monkeypatch.setattr(huggingface_hub.constants, 'ENDPOINT', 'http://127.0.0.1:9')  # nobody listens there
    with pytest.raises(ConnectionError, match=r'config of the text tower of roberta-ViT-B-32 is in no local folder, '
                                              r'and .*can.t be reached.*model.backbone.hf_folder=/path'):
        build_retriever('roberta-ViT-B-32')
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match='of roberta-ViT-B-32 needs transformers: pip install transformers'):
        build_retriever('roberta-ViT-B-32')
