"""Search result."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Hit:
    """A moment found by a search.

    Attributes:
        path (str): Path of the video.
        score (float): Score from the model's head; a cosine for a cosine head.
        start (float): Start of the moment in seconds.
        end (float): End of the moment in seconds.
    """
    path: str
    score: float
    start: float
    end: float
