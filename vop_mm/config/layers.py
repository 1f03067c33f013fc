"""Track where the values of a config come from: its files, their bases and the command line, as layers.

Top-level names of a config file (``num_frames = 12``) are used by value further down: once the file is loaded, the
connection is lost, and changing the name in a child config or by an option changes nothing else. This module reads the
connection from the text of the files and propagates such a change to the places that were made from the name.
"""
import copy
from pathlib import Path

from mmengine.config import Config

from .files import Layer, Use, read_layers
from .values import Keys, dotted, get, put, starts

OPTIONS = '--cfg-options'


class Layers:
    """The layers of a config and the connections between their values.

    Args:
        config (Config): The loaded config.
        filename (str, optional): Its file; None if the config did not come from a file.

    Attributes:
        of_files (bool): True if there is a file.
    """

    def __init__(self, config: Config, filename: str | Path | None = None) -> None:
        self.items: list[Layer] = []
        self._last: dict[Keys, int] = {}  # keys -> last layer that set them
        self._uses: list[tuple[int, Use]] = []
        self.of_files = filename is not None
        layers = read_layers(str(Path(filename).absolute())) if self.of_files else None
        for layer in layers or [Layer(config.filename or 'the config', config=config, assigned=_leaves(config))]:
            self._add(layer)

    def add_options(self, options: dict) -> None:
        """Add the command-line options as the last layer.

        Args:
            options (dict): Values by dotted key.
        """
        nested: list[tuple[Keys, Use | None]] = []
        for key, value in options.items():
            keys = tuple(int(k) if k.isdigit() else k for k in key.split('.'))
            nested += _leaves(value, keys)
        self._add(Layer(OPTIONS, ancestors=set(range(len(self.items))), assigned=nested))

    def _add(self, layer: Layer) -> None:
        number = len(self.items)
        self.items.append(layer)
        for keys, use in layer.assigned:
            self._last = {k: n for k, n in self._last.items() if not starts(k, keys)}
            self._uses = [(n, u) for n, u in self._uses if not starts(u.target, keys)]
            self._last[keys] = number
            if use is not None:
                self._uses.append((number, use))

    # -- queries ------------------------------------------------------------------------------------------------------
    def last(self, keys: Keys) -> int | None:
        """Return the layer that last set keys, directly or as part of a list; None if unknown."""
        return next((self._last[keys[:end]] for end in range(len(keys), 0, -1) if keys[:end] in self._last), None)

    def overrides(self, one: int | None, other: int | None) -> bool:
        """Return True if one layer is based on the other."""
        return one is not None and other is not None and other in self.items[one].ancestors

    def first(self, name: str) -> int | None:
        """Return the layer that first set a top-level name, before others changed parts of it."""
        return min((number for keys, number in self._last.items() if keys[0] == name), default=None)

    @property
    def option_keys(self) -> list[Keys]:
        """Keys that the options set."""
        return [keys for layer in self.items if layer.name == OPTIONS for keys, _ in layer.assigned]

    def sets(self, name: str) -> int:
        """Return the last layer that sets a top-level name or a part of it."""
        return max((number for keys, number in self._last.items() if keys[0] == name), default=0)

    def has_effect(self, name: str) -> bool:
        """Return True if the last value of a top-level name is used, by its own or a later layer or a connection."""
        last = self.sets(name)
        return any(name in layer.loads and (number == last or self.overrides(number, last))
                   for number, layer in enumerate(self.items)) or any(
            source[0] == name for _, use in self._uses for source in use.sources)

    def imports(self) -> list[str]:
        """Return the modules that the ``custom_imports`` of the files name, bases first."""
        named = [layer.value(('custom_imports', 'imports')) for layer in self.items if layer.name != OPTIONS
                 and any(keys[0] == 'custom_imports' for keys, _ in layer.assigned)]
        return [module for modules in named for module in modules]

    # -- propagating changes ------------------------------------------------------------------------------------------
    def set(self, config: Config, keys: Keys, value, layer: int) -> None:
        """Set a value on behalf of a layer that implies it.

        Args:
            config (Config): Config, modified in place.
            keys (Keys): Keys of the value.
            value: New value.
            layer (int): Number of the layer.
        """
        put(config, keys, value)
        self._last[keys] = layer

    def carry(self, config: Config) -> None:
        """Propagate a name's new value, set by a later layer, to the places that were made from the name.

        Values that a layer sets explicitly are kept.

        Args:
            config (Config): Merged config, modified in place.

        Raises:
            ValueError: Such a place holds the result of an expression.
        """
        changed, seen = list(self._last.items()), set()
        while changed:
            keys, layer = changed.pop()
            for number, use in self._uses:
                for source in use.sources:
                    if not self.overrides(layer, number) or not (starts(keys, source) or starts(source, keys)):
                        continue
                    if not use.is_copy:
                        self._refuse_outdated(config, number, use, source)
                        continue
                    target = (*use.target, *keys[len(source):])
                    if (target, layer) not in seen and self._copy(config, source, keys, use.target, target):
                        changed.append((target, layer))
                    seen.add((target, layer))

    def _copy(self, config: Config, source: Keys, keys: Keys, start: Keys, target: Keys) -> bool:
        own = [k for k in self._last if len(k) > len(start) and starts(k, start)]
        if any(starts(target, k) for k in own):
            return False
        try:
            value = copy.deepcopy(get(config, keys if starts(keys, source) else source))
            kept = [(k, get(config, k)) for k in own if starts(k, target)]
            put(config, target, value)
            for k, own_value in kept:
                put(config, k, own_value)
        except (KeyError, IndexError, TypeError):  # deleted in the meantime, or of another structure
            return False
        return True

    def _refuse_outdated(self, config: Config, number: int, use: Use, source: Keys) -> None:
        try:
            unchanged = self.items[number].value(source) == get(config, source)
        except (KeyError, IndexError, TypeError):
            return
        if not unchanged:
            raise ValueError(f'{dotted(source)} was changed after {_short(self.items[number].name)} had made '
                             f'{dotted(use.target)} from it: change {dotted(use.target)} itself')


def _leaves(value, keys: Keys = ()) -> list[tuple[Keys, None]]:
    """Return the keys that a value sets: dicts are merged with the existing value, anything else replaces it."""
    if isinstance(value, (dict, Config)) and not value.get('_delete_'):
        return [leaf for key, item in value.items() for leaf in _leaves(item, (*keys, key))]
    return [(keys, None)]


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename
