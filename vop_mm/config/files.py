"""Parse config files to find which keys they set, and from which variables."""
import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from mmengine.config import Config

from .values import Keys, get

_BASE, _DELETE = '_base_', '_delete_'
_TEMPLATE = r'\{\{\s*_base_\.[\w.]+\s*\}\}'


@dataclass
class Use:
    """A value that a file makes from other values.

    Args:
        target (Keys): Keys of the value.
        sources (list[Keys]): Keys that it was made from.
        is_copy (bool): True if it is an unchanged copy of its only source, False if it results from an expression.
    """
    target: Keys
    sources: list[Keys]
    is_copy: bool


@dataclass
class Layer:
    """One layer of a config: a file, a loaded config, or the command-line options.

    Args:
        name (str): File name, for messages.
        has_bases (bool): True for a file with base configs.
        ancestors (set[int]): Numbers of the layers below it.
        assigned (list): Keys that it sets, in order, each with the :class:`Use` of other values, if any.
        loads (set[str]): Names that it reads.
        config (Config, optional): The config, if it is not to be read from a file.
    """
    name: str
    has_bases: bool = False
    ancestors: set[int] = field(default_factory=set)
    assigned: list[tuple[Keys, Use | None]] = field(default_factory=list)
    loads: set[str] = field(default_factory=set)
    config: Config | None = None

    def value(self, keys: Keys):
        """Return the value at keys in this layer and those below; raise KeyError if there is none."""
        if self.config is None:
            self.config = Config.fromfile(self.name, import_custom_modules=False)
        return get(self.config, keys)


def read_layers(filename: str) -> list[Layer] | None:
    """Read which keys a config file and its bases set, and from which variables.

    Args:
        filename (str): Config file.

    Returns:
        list[Layer] | None: Layers in the order in which they are merged; None if the text can't be analyzed.
    """
    layers: list[Layer] = []
    try:
        _read_file(filename, layers)
    except (SyntaxError, ValueError, OSError, AttributeError, yaml.YAMLError):
        return None
    return layers


def _read_file(filename: str, layers: list[Layer]) -> set[int]:
    text = Path(filename).read_text(encoding='utf-8')
    if filename.endswith('.py'):
        bases, reader = Config._get_base_files(filename), _FileReader(text)
        assigned, loads = reader.assigned, reader.loads
    else:
        content = yaml.safe_load(re.sub(rf'(?<!["\'])({_TEMPLATE})', r'"\1"', text))  # JSON is parsed as YAML too
        assigned, loads, bases = _read_values(content), set(), content.get(_BASE, [])
    ancestors: set[int] = set()
    for base in [bases] if isinstance(bases, str) else bases:
        ancestors |= _read_file(Config._get_cfg_path(base, filename)[0], layers)
    # In MMEngine's other style, with read_base(), imports from base configs are not followed.
    layers.append(Layer(filename, bool(bases) or 'read_base' in loads, ancestors, assigned, loads))
    return ancestors | {len(layers) - 1}


def _read_values(value, keys: Keys = ()) -> list[tuple[Keys, Use | None]]:
    """Return the keys that JSON or YAML content sets; only texts like ``'{{_base_.name}}'`` use other values."""
    if isinstance(value, dict):
        return [item for key, own in value.items() if keys or key != _BASE for item in _read_values(own, (*keys, key))]
    if isinstance(value, list):
        return [(keys, None), *(item for i, own in enumerate(value) for item in _read_values(own, (*keys, i)))]
    sources = _sources_in_text(value) if isinstance(value, str) else []
    is_copy = bool(sources) and re.fullmatch(_TEMPLATE, value) is not None
    return [(keys, Use(keys, sources, is_copy) if sources else None)]


class _FileReader:
    """Finds what the statements of a config file assign, and from which variables.

    Args:
        text (str): Content of the file.
    """

    def __init__(self, text: str) -> None:
        # Turn templates into Python: MMEngine's own placeholders become a constant, {{_base_.a.0}} becomes _base_.a[0].
        text = re.sub(r'\{\{\s*(?!_base_)[^{}]*\}\}', 'None', text)
        text = re.sub(rf'''(['"])({_TEMPLATE})\1''', r'\2', text)
        text = re.sub(r'\{\{\s*(_base_\.[\w.]+)\s*\}\}', lambda m: re.sub(r'\.(\d+)', r'[\1]', m[1]), text)
        self.assigned: list[tuple[Keys, Use | None]] = []
        tree = ast.parse(text)
        self.loads = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)
                      and isinstance(node.ctx, ast.Load)}
        self.loads |= {source[0] for node in ast.walk(tree) if (source := _base_keys(node))}
        body = tree.body
        stored = [name for statement in body for name in _stored(statement)]
        self._names, self._often = set(stored), {name for name in stored if stored.count(name) > 1}
        for statement in body:
            if isinstance(statement, ast.Assign) and all(isinstance(t, ast.Name) for t in statement.targets):
                for target in statement.targets:
                    if target.id != _BASE:
                        self._assign((target.id,), statement.value)
            elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
                self._assign((statement.target.id,), statement.value)
            elif not isinstance(statement, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)):
                for name in _stored(statement):  # a loop, a condition or an in-place change
                    self._assign((name,), statement)

    def _assign(self, keys: Keys, node: ast.AST) -> None:
        items = _items(node)
        if items is None:
            source, sources = self._source(node), self._sources(node, keys[0])
            is_copy = bool(source) and source[0] not in self._often
            self.assigned.append((keys, Use(keys, [source] if is_copy else sources, is_copy) if sources else None))
            return
        if isinstance(node, (ast.List, ast.Tuple)) or _DELETE in dict(items):
            self.assigned.append((keys, None))
        for key, item in items:
            if key != _DELETE:
                self._assign((*keys, key), item)

    def _source(self, node: ast.AST) -> Keys | None:
        """Return the keys of ``name``, ``name.a``, ``name['a'][0]`` or ``_base_.name``."""
        if isinstance(node, ast.Name):
            return () if node.id == _BASE else (node.id,) if node.id in self._names else None
        if isinstance(node, ast.Attribute):
            last, value = node.attr, self._source(node.value)
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            last, value = node.slice.value, self._source(node.value)
        else:
            return None
        return None if value is None else (*value, last)

    def _sources(self, node: ast.AST, own: str) -> list[Keys]:
        """Return the keys of all names in an expression or a statement, except its own."""
        found = self._source(node)
        if found:
            return [found]
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return _sources_in_text(node.value)
        return [source for child in ast.iter_child_nodes(node) for source in self._sources(child, own)
                if source != (own,)]


def _base_keys(node: ast.AST) -> Keys | None:
    """Return the keys of ``_base_.a.b``; for a text that contains such templates, those of the first one."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == _BASE:
        return (node.attr,)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return next(iter(_sources_in_text(node.value)), None)
    return None


def _items(node: ast.AST) -> list[tuple[str | int, ast.AST]] | None:
    """Return the items of a dict, list or tuple; None if they can't be read from the text, and for other nodes."""
    if isinstance(node, ast.Dict):
        plain = all(isinstance(key, ast.Constant) for key in node.keys)
        return [(key.value, value) for key, value in zip(node.keys, node.values)] if plain else None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        plain = not node.args and all(keyword.arg for keyword in node.keywords)
        return [(keyword.arg, keyword.value) for keyword in node.keywords] if plain else None
    if isinstance(node, (ast.List, ast.Tuple)):
        return None if any(isinstance(item, ast.Starred) for item in node.elts) else list(enumerate(node.elts))
    return None


def _stored(statement: ast.AST) -> list[str]:
    """Return the top-level names that a statement assigns or modifies."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return []
    names = [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    for node in ast.walk(statement):
        # a.b = 1, a['b'] = 1, del a['b'], and a.update(b=1) as a statement
        if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, (ast.Store, ast.Del)):
            changed = node
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            changed = node.value.func
        else:
            continue
        while isinstance(changed, (ast.Subscript, ast.Attribute)):
            changed = changed.value
        if isinstance(changed, ast.Name):
            names.append(changed.id)
    return list(dict.fromkeys(names))


def _sources_in_text(text: str) -> list[Keys]:
    return [tuple(int(k) if k.isdigit() else k for k in found.split('.'))
            for found in re.findall(r'_base_\.([\w.]*\w)', text)]
