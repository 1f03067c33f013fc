"""Decoders, what they can't be trusted with, and the process that they run in."""
from .containers import unfit_for_decord, unfit_for_torchcodec
from .decord_reader import DecordReader
from .process import DecodeProcess
from .torchcodec_reader import TorchCodecReader, torchcodec_problem
from .video_reader import FrameBatch, UnfitDecoderError, VideoReader, check_file

__all__ = [
    'DecodeProcess', 'DecordReader', 'FrameBatch', 'TorchCodecReader', 'UnfitDecoderError', 'VideoReader', 'check_file',
    'torchcodec_problem', 'unfit_for_decord', 'unfit_for_torchcodec'
]
