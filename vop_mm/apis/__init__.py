"""What programs call: models that encode, and search."""
from vop_mm.engine.inference import init_model

__all__ = ['UnknownWordsWarning', 'VideoSearcher', 'init_model']


def __getattr__(name: str):
    if name in ('UnknownWordsWarning', 'VideoSearcher'):  # lazy: tools that only train need not import the search code
        import vop_mm.search
        return getattr(vop_mm.search, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
