"""Random choices that depend on seed, epoch and index alone."""
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def fixed_randomness(*key: int) -> Iterator[None]:
    """Within it Python's, numpy's and torch's global generators (CPU) are seeded from a key; afterwards they go on
    as if nothing had been.

    Transforms of OpenMMLab draw from these generators. Seeded per sample, what they draw depends neither on the number
    of workers nor on what was drawn before, and a resumed run draws what the whole one would have.

    Args:
        *key (int): 0 or more each.
    """
    before = generator_states()
    words = np.random.SeedSequence(key).generate_state(8)
    random.seed(words[:2].tobytes())
    np.random.seed(words[2:6])
    # not torch.manual_seed: that one seeds the GPUs' generators too
    torch.default_generator.manual_seed(int(words[6]) << 16 ^ int(words[7]))
    try:
        yield
    finally:
        set_generator_states(before)


def generator_states() -> tuple[Any, Any, Any]:
    """States of Python's, numpy's and torch's global generators (CPU)."""
    return random.getstate(), np.random.get_state(), torch.default_generator.get_state().numpy()


def set_generator_states(states: tuple[Any, Any, Any]) -> None:
    """Set what :func:`generator_states` returned, here or in another process."""
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.default_generator.set_state(torch.from_numpy(states[2]))


class SharedClock:
    """Seed and epoch in shared memory: what the main process sets, workers that already run see.

    Args:
        seed (int): 0 or more.
        epoch (int): 0 or more.
    """

    def __init__(self, seed: int = 0, epoch: int = 0) -> None:
        self._values = torch.tensor([seed, epoch], dtype=torch.int64).share_memory_()

    def __deepcopy__(self, memo: dict) -> 'SharedClock':
        return SharedClock(self.seed, self.epoch)  # a copied tensor would not be shared any more

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self._values[0])

    @property
    def epoch(self) -> int:
        """The epoch that is, or is about to be, trained."""
        return int(self._values[1])

    def set(self, epoch: int, seed: int | None = None) -> None:
        """Set the epoch, and the seed where one is given."""
        self._values[1] = epoch
        if seed is not None:
            self._values[0] = seed
