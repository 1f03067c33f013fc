"""Random choices that depend only on seed, epoch and index."""
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def fixed_randomness(*key: int) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch (CPU) from a key, and restore them afterwards.

    OpenMMLab transforms draw from these generators. Seeded per sample, their draws depend neither on the number of
    workers nor on earlier draws, and a resumed run draws the same numbers as an uninterrupted one.

    Args:
        *key (int): Non-negative integers.
    """
    before = generator_states()
    words = np.random.SeedSequence(key).generate_state(8)
    random.seed(words[:2].tobytes())
    np.random.seed(words[2:6])
    # not torch.manual_seed, which also seeds the GPU generators
    torch.default_generator.manual_seed(int(words[6]) << 16 ^ int(words[7]))
    try:
        yield
    finally:
        set_generator_states(before)


def generator_states() -> tuple[Any, Any, Any]:
    """Return the states of the global generators of Python, numpy and torch (CPU)."""
    return random.getstate(), np.random.get_state(), torch.default_generator.get_state().numpy()


def set_generator_states(states: tuple[Any, Any, Any]) -> None:
    """Set states returned by :func:`generator_states`, here or in another process."""
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.default_generator.set_state(torch.from_numpy(states[2]))


class SharedClock:
    """Seed and epoch in shared memory: running workers see what the main process sets.

    Args:
        seed (int): Random seed, 0 or more.
        epoch (int): Epoch, 0 or more.
    """

    def __init__(self, seed: int = 0, epoch: int = 0) -> None:
        self._values = torch.tensor([seed, epoch], dtype=torch.int64).share_memory_()

    def __deepcopy__(self, memo: dict) -> 'SharedClock':
        return SharedClock(self.seed, self.epoch)  # a copied tensor would no longer be shared

    @property
    def seed(self) -> int:
        """Random seed of the run."""
        return int(self._values[0])

    @property
    def epoch(self) -> int:
        """Current or next training epoch."""
        return int(self._values[1])

    def set(self, epoch: int, seed: int | None = None) -> None:
        """Set the epoch, and the seed if given."""
        self._values[1] = epoch
        if seed is not None:
            self._values[0] = seed
