"""Register all modules of vop_mm, and make its scope the default."""
import importlib

_PACKAGES = ('vop_mm.datasets', 'vop_mm.engine', 'vop_mm.evaluation', 'vop_mm.models')


def register_all_modules(init_default_scope: bool = True) -> None:
    """Import every package of vop_mm that registers classes.

    Tools call this once at the start; scripts and notebooks that build components from configs should do the same.

    Args:
        init_default_scope (bool): Make ``vop_mm`` the scope in which names without a prefix are looked up.
            Defaults to True.
    """
    from mmengine.registry import DefaultScope  # late: tools import this package before parsing arguments

    for package in _PACKAGES:
        importlib.import_module(package)
    if init_default_scope:
        current = DefaultScope.get_current_instance()
        if current is None or current.scope_name != 'vop_mm':
            DefaultScope.get_instance('vop_mm' if current is None else f'vop_mm-{id(current)}', scope_name='vop_mm')
