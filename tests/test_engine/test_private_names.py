"""How often the package and its tools touch private names of MMEngine, which may change with any of its versions."""
import ast
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import mmengine

from tests.tools import ROOT

MOST = 12
OUR_OWN = {'self', 'cls'}


def is_private(name: str) -> bool:
    return name.startswith('_') and not name.endswith('__')


def defined_in(tree: ast.AST) -> set[str]:
    """Private names of functions, classes, variables and own attributes that a tree defines or assigns."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return {name for name in names if is_private(name)} | attributes_in(tree)


def attributes_in(tree: ast.AST) -> set[str]:
    """Private attributes that objects assign to themselves."""
    return {node.attr for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_private(node.attr)
            and isinstance(node.value, ast.Name) and node.value.id in OUR_OWN}


@cache
def of_mmengine() -> set[str]:
    """Every private name that some file of MMEngine defines."""
    files = Path(mmengine.__file__).parent.rglob('*.py')
    return set().union(*(defined_in(ast.parse(path.read_text())) for path in files))


@cache
def inherited(kind: type) -> set[str]:
    """Private names that the bases of a class define, as far as they are MMEngine's; a mixin has those beside it."""
    names = set()
    for base in {base for one in (kind, *kind.__subclasses__()) for base in one.__mro__}:
        if base.__module__.split('.')[0] == 'mmengine':
            names |= {name for name in vars(base) if is_private(name)} | attributes_in(
                ast.parse(textwrap.dedent(inspect.getsource(base))))
    return names


def load(path: Path):
    """A file as a module, whatever runs it otherwise."""
    name = '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
    if name.startswith('vop_mm'):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def touched(node: ast.AST, bases: set[str]) -> Iterator[tuple[int, str]]:
    """Lines and private names of MMEngine in a tree; ``bases`` has the ones that its class inherits."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            continue
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            module = getattr(child, 'module', None)
            for alias in child.names:
                parts = [*(module or '').split('.'), *alias.name.split('.')]
                if getattr(child, 'level', 0) == 0 and parts[module is None or 0].split('.')[0] == 'mmengine':
                    yield from ((child.lineno, alias.name) for part in parts if is_private(part))
        elif isinstance(child, ast.FunctionDef) and child.name in bases:
            yield child.lineno, child.name
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store) and isinstance(node, ast.Assign) \
                and child.id in bases:
            yield child.lineno, child.id
        elif isinstance(child, ast.Attribute) and is_private(child.attr):
            is_own = isinstance(child.value, ast.Name) and child.value.id in OUR_OWN or (
                isinstance(child.value, ast.Call) and getattr(child.value.func, 'id', None) == 'super')
            if child.attr in (bases if is_own else of_mmengine()):
                yield child.lineno, child.attr
        elif (isinstance(child, ast.Call) and getattr(child.func, 'id', None) in ('getattr', 'setattr', 'hasattr')
              and isinstance(child.args[1], ast.Constant) and child.args[1].value in of_mmengine()):
            yield child.lineno, child.args[1].value
        yield from touched(child, bases)


def places() -> list[str]:
    """Where the package and its tools touch a private name of MMEngine."""
    found = []
    for path in sorted([*(ROOT / 'vop_mm').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')]):
        tree, module = ast.parse(path.read_text()), None
        parts = [(tree, set())]
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                module = module or load(path)
                kind = getattr(module, node.name, None)
                parts.append((node, inherited(kind) if isinstance(kind, type) else set()))
        own = defined_in(tree)
        for part, bases in parts:
            # a name of ours that MMEngine happens to use, too, somewhere else
            found += [f'{path.relative_to(ROOT)}:{line} {name}' for line, name in touched(part, bases)
                      if name in bases or name not in own]
    return found


def test_few_places_touch_private_names_of_mmengine():
    found = places()
    assert len(found) <= MOST, '\n'.join(found)


def test_they_are_all_found(tmp_path):
    tree = ast.parse('''
from mmengine._strategy import DDPStrategy
from mmengine.optim import _ParamScheduler, OptimWrapper
import mmengine._strategy
class A(Runner):
    _hooks = []
    def _log_env(self):
        super()._log_env()
        self._resume = self._own
    def f(self, loop):
        loop._train_loop
        return getattr(loop, '_val_loop')
''')
    kind = next(node for node in tree.body if isinstance(node, ast.ClassDef))
    from mmengine.runner import Runner
    assert [name for _, name in touched(tree, set())] == ['DDPStrategy', '_ParamScheduler', 'mmengine._strategy']
    assert [name for _, name in touched(kind, inherited(Runner))] == [
        '_hooks', '_log_env', '_log_env', '_resume', '_train_loop', '_val_loop']
