"""Where the videos of an index are, as it keeps that."""
import os
from pathlib import Path

from vop_mm.datasets.remote import is_address, public_address
from vop_mm.datasets.video_manifest import is_manifest


def place_of_videos(videos: str | Path) -> str:
    """An absolute path of a folder or a manifest, or an address without passwords and signatures."""
    return public_address(str(videos)) if is_address(str(videos)) else os.path.abspath(videos)


def path_of_video(place: str, name: str) -> str:
    """Path or address of a video, by its name in the catalogue; of what is before all names, for an empty one."""
    if is_address(name):  # of a manifest
        return name
    return os.path.join(os.path.dirname(place) if is_manifest(place) else place, name)


def name_of_video(place: str, path: str) -> str:
    """The name in the catalogue of a video that a hit names."""
    return path.removeprefix(path_of_video(place, ''))
