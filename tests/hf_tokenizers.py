"""Tiny tokenizers of Hugging Face, as ``save_pretrained`` writes them into a folder."""
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

WORDS = ['a', 'squid', 'is', 'talking', 'cat', 'sits', 'man', 'car', 'red', 'painted']
_LETTERS = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?&;\'"'


def write_tokenizer(folder: Path, kind: str) -> Path:
    """Write a tokenizer of a kind: ``siglip``, ``mt5``, ``bert``, ``roberta`` or ``nllb``."""
    tokenizer, settings = _KINDS[kind]()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / 'tokenizer.json'))
    (folder / 'tokenizer_config.json').write_text(json.dumps(settings))
    return folder


def _sentencepiece(special: list[str], end: str) -> Tokenizer:
    pieces = [*special, '<unk>', '▁', *(f'▁{word}' for word in WORDS), *_LETTERS]
    scores = [0. if piece in special else -2. if piece[1:] in WORDS else -9. for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores)), unk_id=len(special), byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([*special, '<unk>'])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f'$A {end}', special_tokens=[(end, tokenizer.token_to_id(end))])
    return tokenizer


def _siglip():  # of SigLIP's first version: one token is padding and end
    return _sentencepiece(['<extra>', '</s>'], '</s>'), dict(
        tokenizer_class='PreTrainedTokenizerFast', eos_token='</s>', pad_token='</s>', unk_token='<unk>')


def _mt5():  # also SigLIP 2
    return _sentencepiece(['<pad>', '</s>'], '</s>'), dict(
        tokenizer_class='PreTrainedTokenizerFast', eos_token='</s>', pad_token='<pad>', unk_token='<unk>')


def _bert():
    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    words = [*special, *WORDS, '##s', '##es', ',', '!', '&', "'", 's']
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token='[UNK]'))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single='[CLS] $A [SEP]', special_tokens=[('[CLS]', 2), ('[SEP]', 3)])
    return tokenizer, dict(tokenizer_class='BertTokenizer', do_lower_case=True, unk_token='[UNK]', pad_token='[PAD]',
                           cls_token='[CLS]', sep_token='[SEP]', mask_token='[MASK]')


def _roberta():
    special = ['<s>', '<pad>', '</s>', '<unk>', '<mask>']
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), 'ca', 'cat']
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [('c', 'a'), ('ca', 't')]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.RobertaProcessing(('</s>', 2), ('<s>', 0), add_prefix_space=False)
    return tokenizer, dict(tokenizer_class='RobertaTokenizer', bos_token='<s>', cls_token='<s>', eos_token='</s>',
                           sep_token='</s>', unk_token='<unk>', pad_token='<pad>', mask_token='<mask>')


def _nllb():
    special = ['<s>', '<pad>', '</s>', '<unk>', 'eng_Latn', 'deu_Latn', '<mask>']
    pieces = [*special, '▁', *_LETTERS, '▁a']
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [('▁', 'a')], unk_token='<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(special)
    return tokenizer, dict(tokenizer_class='NllbTokenizer', bos_token='<s>', cls_token='<s>', eos_token='</s>',
                           sep_token='</s>', unk_token='<unk>', pad_token='<pad>', mask_token='<mask>',
                           src_lang='eng_Latn', extra_special_tokens=['eng_Latn', 'deu_Latn'])


_KINDS = dict(siglip=_siglip, mt5=_mt5, bert=_bert, roberta=_roberta, nllb=_nllb)
