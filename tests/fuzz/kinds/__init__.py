"""Kinds of input, one module each."""
import importlib

# kind -> module; modules import what they need, so that names cost nothing
MODULES = {
    'checkpoint-config': 'checkpoint_configs',
    'safetensors-config': 'checkpoint_configs',
    'index-config': 'index_configs',
    'sqlite': 'catalogues',
    'faiss': 'faiss_files',
    'lmdb': 'frame_stores',
    'checkpoint': 'checkpoints',
    'safetensors': 'checkpoints',
    'resume': 'resumes',
    'annotation': 'annotations',
    'video': 'videos',
}


def load_kind(name: str):
    """A kind, by its name."""
    kinds = importlib.import_module(f'.{MODULES[name]}', __name__).KINDS
    return next(kind for kind in kinds if kind.name == name)
