"""Video decoders, their limits, and the process they run in."""
from .batch import FrameBatch
from .decord_reader import DecordReader
from .formats import CODECS, container_format
from .images import read_image
from .limits import Limits
from .process import DecodeProcess
from .pyav_reader import PyAVReader
from .video_file import VideoFile, check_file, open_video_file
from .video_info import VideoInfo, probe
from .video_reader import VideoReader

__all__ = [
    'CODECS', 'DecodeProcess', 'DecordReader', 'FrameBatch', 'Limits', 'PyAVReader', 'VideoFile', 'VideoInfo',
    'VideoReader', 'check_file', 'container_format', 'open_video_file', 'probe', 'read_image'
]
