"""What a search finds."""
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Hit:
    """A moment that was found; ``path, score = hit`` works as well.

    Attributes:
        path (str): The video.
        score (float): How well it fits the query, as the model's head says; a cosine where it is one.
        start (float): Where the moment begins, in seconds.
        end (float): Where it ends.
    """
    path: str
    score: float
    start: float
    end: float

    def __iter__(self) -> Iterator:
        return iter((self.path, self.score))

    def __getitem__(self, index: int):
        return (self.path, self.score)[index]
