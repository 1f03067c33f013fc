"""Names of Hugging Face tokenizers: folders, and repositories of the hub."""
import os.path as osp
import re

_REPOSITORY = re.compile(r'[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?', re.ASCII)


def on_hub(name: str) -> bool:
    """Return True if a name is that of a repository, and not of a folder, which may be missing.

    Args:
        name (str): ``'timm/ViT-B-16-SigLIP'``, ``'bert-base-uncased'``, ``'/path/to/folder'`` ...
    """
    return not osp.isdir(name) and not name.endswith(('.json', '.model')) and _REPOSITORY.fullmatch(name) is not None


def open_clip_tokenizers() -> set[str]:
    """Return the names of the repositories that open_clip's architectures take their tokenizers from."""
    import open_clip
    texts = [open_clip.get_model_config(arch).get('text_cfg', {}) for arch in open_clip.list_models()]
    return {text[key] for text in texts for key in ('hf_tokenizer_name', 'hf_model_name') if text.get(key)}
