"""Whether a clip is fit to train on and to evaluate."""
from collections.abc import Callable

from .decoding import unfit_for_decord
from .errors import VideoDecodeError
from .transforms import clip_range, uniform_indices

PROBLEMS = {
    'missing': 'no such file',
    'unreadable': 'can\'t be decoded',
    'no video': 'no video stream',
    'wrong frames': 'other frames than those asked for are suspected, silently',
    'frame count': 'not as many frames as the container says',
    'times': 'the annotation\'s clip starts behind the end',
}
NOTES = {
    'short': 'fewer frames than asked for: the last one is repeated',
    'ends early': 'the annotation\'s clip ends behind the end: it is cut there',
    'torchcodec': 'decord would make wrong frames of it: read with torchcodec',
}
_TOLERANCE = 0.05  # of the number of frames: containers round, and skip some at the ends
_LATE = 0.5  # seconds by which an annotation may be rounded


def check_clip(open_video: Callable[[dict], dict], item: dict, num_frames: int) -> dict:
    """Look at one clip as training would, and at the end of its file. The decoder may crash or hang.

    Args:
        open_video (Callable): The transform that opens videos.
        item (dict): ``filename``, and ``start`` and ``end`` (seconds) where the annotation has them.
        num_frames (int): Frames of a clip.

    Returns:
        dict: ``problem`` (of ``PROBLEMS``; '' where it is fit), ``notes`` (of ``NOTES``, a list), ``detail`` (str), and
        as far as they are known ``frames``, ``fps``, ``seconds``, ``height`` and ``width`` of the file.
    """
    path, row = item['filename'], dict(problem='', notes=[], detail='')
    try:
        reader = open_video(dict(filename=path))['video_reader']
    except VideoDecodeError as e:
        return dict(row, problem=_kind(path, e.reason), detail=e.reason)
    count, fps = len(reader), reader.get_avg_fps()
    times = reader.timestamps()
    seconds = float(times[count - 1]) + 1 / fps
    row.update(frames=count, fps=round(fps, 3), seconds=round(seconds, 3))
    try:
        first, stop = clip_range(times, item.get('start'), item.get('end'))
    except ValueError as e:
        return dict(row, problem='times', detail=str(e))
    try:
        reader.get_batch([count - 1])
    except VideoDecodeError as e:
        return dict(row, problem='frame count', detail=f'of {count} frames the last one can\'t be decoded: {e.reason}')
    try:
        frames = reader.get_batch(first + uniform_indices(stop - first, num_frames)).asnumpy()
    except VideoDecodeError as e:
        return dict(row, problem='unreadable', detail=e.reason)
    row.update(height=frames.shape[1], width=frames.shape[2])
    said = _containers_count(path)
    if abs(said - count) > max(2, _TOLERANCE * said) and said:
        return dict(row, problem='frame count', detail=f'the container says {said} frames, {count} are there')
    details = dict(zip(('short', 'ends early', 'torchcodec'), (
        f'{stop - first} of {num_frames} frames' if stop - first < num_frames else None,
        f'the clip ends at {item["end"]:g} s, the video at {seconds:.2f} s'
        if item.get('end') is not None and item['end'] > seconds + _LATE else None,
        unfit_for_decord(path))))
    noted = {note: detail for note, detail in details.items() if detail}
    return dict(row, notes=list(noted), detail='; '.join(noted.values()))


def _kind(path: str, reason: str) -> str:
    if reason == 'no such file':
        return 'missing'
    if 'no video stream' in reason:
        return 'no video'
    try:
        suspected = unfit_for_decord(path) or 'wrong' in reason
    except OSError:
        suspected = False
    return 'wrong frames' if suspected else 'unreadable'


def _containers_count(path: str) -> int:
    """Frames of the video by the container's header; 0 where it doesn't say, or PyAV is not installed."""
    try:
        import av
    except ImportError:
        return 0
    with av.open(path, metadata_errors='ignore') as container:
        return container.streams.video[0].frames
