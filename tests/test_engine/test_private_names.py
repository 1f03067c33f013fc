"""How often the package and its tools touch private names of MMEngine, which may change with any of its versions."""
import ast
import importlib
import inspect
import sys
from pathlib import Path

import mmengine
import mmengine.dataset
import mmengine.dist
import mmengine.hooks
import mmengine.logging
import mmengine.optim
import mmengine.runner
import mmengine.visualization

from tests.tools import ROOT

MOST = 12


def is_private(name: str) -> bool:
    return name.startswith('_') and not name.endswith('__')


def private_names_of_mmengine() -> set[str]:
    """Private attributes that its classes define or assign, and private names of its modules."""
    names = set()
    for path in Path(mmengine.__file__).parent.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return {name for name in names if is_private(name)}
