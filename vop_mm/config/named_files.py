"""Check that the files named by a user exist, before weights are downloaded or a model is built."""
import os.path as osp
from collections.abc import Sequence

from mmengine.config import Config

from vop_mm.utils.paths import require_file
from vop_mm.utils.tokenizer_names import on_hub

from .values import walk


def require_files(cfg: Config, splits: Sequence[str] = ()) -> None:
    """Check that the files named by a config exist.

    Args:
        cfg (Config): The config.
        splits (Sequence[str]): Splits whose annotations are needed: ``'train'``, ``'val'`` and ``'test'``. Defaults to
            none.

    Raises:
        FileNotFoundError: The checkpoint to load, the CLIP weights, a query bank, a vocabulary or the folder
            of a tokenizer is missing.
        AnnotationError: The annotation of a split is missing.
    """
    from vop_mm.datasets.errors import AnnotationError

    require_file(cfg.get('load_from'))
    if isinstance(cfg.get('resume'), str) and cfg.resume != 'auto':
        require_file(cfg.resume)
    weights = (cfg.model.get('backbone') or {}).get('weights') if isinstance(cfg.get('model'), dict) else None
    if isinstance(weights, str) and '/' in weights:
        require_file(weights, 'CLIP weights')
    if 'test' in splits:
        for _, part in walk(cfg.get('test_evaluator')):
            if isinstance(part, dict):
                require_file(part.get('query_bank'), 'query bank')
    for split in splits:
        for _, part in walk(cfg.get(f'{split}_dataloader')):
            if not isinstance(part, dict):
                continue
            if part.get('ann_file'):
                path = osp.join(part.get('data_root') or '', part['ann_file'])
                if '://' not in path and not osp.isfile(path):
                    raise AnnotationError(path, 'no such annotation file')
            if isinstance(part.get('vocab'), str):
                require_file(part['vocab'], 'vocabulary')
            if part.get('type') in ('HFTokenizer', 'vop_mm.HFTokenizer'):
                name = str(part.get('name'))
                if not osp.isdir(name) and not on_hub(name):
                    raise FileNotFoundError(f'tokenizer not found: {name} is no folder')
