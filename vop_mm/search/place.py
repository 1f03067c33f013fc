"""Location of an index's videos, as stored in the index."""
import os
from pathlib import Path

from vop_mm.datasets.remote import is_address, public_address
from vop_mm.datasets.video_manifest import is_manifest


def place_of_videos(videos: str | Path) -> str:
    """Return the absolute path of a folder or manifest, or an address without passwords and signatures."""
    return public_address(str(videos)) if is_address(str(videos)) else os.path.abspath(videos)


def path_of_video(place: str, name: str) -> str:
    """Return the path or address of a video by its name in the catalog; for an empty name, the common prefix."""
    if is_address(name):  # from a manifest
        return name
    return os.path.join(os.path.dirname(place) if is_manifest(place) else place, name)


def name_of_video(place: str, path: str) -> str:
    """Return the name in the catalog of a video's path."""
    return path.removeprefix(path_of_video(place, ''))
