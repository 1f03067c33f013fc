"""Supported containers, recognized by their first bytes.

FFmpeg accepts far more: playlists, scripts and file lists, which name other files and addresses. Everything that is not
listed here is refused before a library based on FFmpeg sees the file.
"""
from typing import BinaryIO

CODECS = ('h264', 'hevc', 'av1', 'libdav1d', 'libaom-av1', 'vp8', 'vp9', 'libvpx', 'libvpx-vp9', 'mpeg4', 'mpeg2video',
          'mpeg1video', 'h263', 'flv', 'vp6', 'vp6f', 'msmpeg4v1', 'msmpeg4', 'msmpeg4v2', 'wmv1', 'wmv2', 'wmv3',
          'vc1', 'mjpeg', 'prores', 'dnxhd', 'dvvideo', 'theora', 'ffv1', 'huffyuv', 'rawvideo', 'gif')
"""FFmpeg decoder names that are allowed, for programs and libraries that accept such a list."""

_HEAD = 8192
_ASF = bytes.fromhex('3026b2758e66cf11a6d900aa0062ce6c')
_MP4_BOXES = (b'ftyp', b'moov', b'mdat', b'free', b'skip', b'wide', b'styp', b'pnot', b'uuid')
_PACKETS = 5  # number of consecutive packets that identify a transport stream


def container_format(file: BinaryIO) -> str | None:
    """Recognize a video container by its content.

    Args:
        file (BinaryIO): An open file; its position is 0 afterwards.

    Returns:
        str | None: FFmpeg's demuxer name. None: not a supported video.
    """
    file.seek(0)
    head = file.read(_HEAD)
    file.seek(0)
    return next((name for name, matches in _FORMATS.items() if matches(head)), None)


def _is_mp4(head: bytes) -> bool:
    # A size that begins with a zero byte rules out everything that could be read as text (such as a playlist). Movie
    # and media data boxes may be larger than that; they have a zero byte near their start, which text does not.
    return head[4:8] in _MP4_BOXES and (head[0] == 0 or (head[4:8] in (b'moov', b'mdat') and 0 in head[8:64]))


def _is_matroska(head: bytes) -> bool:
    return head.startswith(b'\x1a\x45\xdf\xa3') and any(kind in head[4:256] for kind in (b'matroska', b'webm'))


def _is_avi(head: bytes) -> bool:
    return (head.startswith(b'RIFF') and head[8:16] == b'AVI LIST'
            and head[20:32] == b'hdrlavih' + (56).to_bytes(4, 'little'))


def _is_flash(head: bytes) -> bool:
    return head.startswith(b'FLV') and head[5:9] == (9).to_bytes(4, 'big')


def _is_transport_stream(head: bytes) -> bool:
    # 188 bytes per packet, with a timestamp before it (m2ts) or a checksum after it; the first packet may be cut
    return any(head[first:first + size * _PACKETS:size] == b'\x47' * _PACKETS
               for size in (188, 192, 204) for first in range(size))


# Transport streams are last: their signature is weak.
_FORMATS = {
    'mov': _is_mp4,
    'matroska': _is_matroska,
    'avi': _is_avi,
    'flv': _is_flash,
    'ogg': lambda head: head.startswith(b'OggS\0'),
    'asf': lambda head: head.startswith(_ASF),
    'gif': lambda head: head.startswith((b'GIF87a', b'GIF89a')),
    'mpeg': lambda head: head.startswith(b'\x00\x00\x01\xba'),
    'mpegts': _is_transport_stream,
}
