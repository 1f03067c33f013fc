"""Check whether a clip can be used for training and evaluation."""
from .errors import VideoDecodeError
from .transforms import ReadClip

PROBLEMS = {
    'missing': 'no such file',
    'unreadable': 'can\'t be decoded',
    'no video': 'no video stream',
    'cut off': 'the end can\'t be decoded',
    'times': 'the annotation\'s clip starts behind the end',
}
NOTES = {
    'short': 'fewer frames than asked for: the last one is repeated',
    'ends early': 'the annotation\'s clip ends after the end: it is clipped there',
    'several tracks': 'several video tracks: one of them is read',
    'HDR': 'HDR: tone mapped to SDR',
}
_LATE = 0.5  # tolerance in seconds for rounded annotations


def check_clip(read: ReadClip, item: dict) -> dict:
    """Read one clip as training would, and the end of its file. The decoder may crash or hang.

    Args:
        read (ReadClip): Transform that reads clips.
        item (dict): ``filename``, and ``start`` and ``end`` (seconds) if the annotation has them.

    Returns:
        dict: ``problem`` (a key of ``PROBLEMS``; '' if there is none), ``notes`` (list of keys of ``NOTES``),
        ``detail`` (str), and as far as known ``frames``, ``fps``, ``seconds``, ``height`` and ``width`` of the file.
    """
    path, start, end = item['filename'], item.get('start'), item.get('end')
    row = dict(problem='', notes=[], detail='')
    try:
        reader = read.open(path)
    except VideoDecodeError as e:
        missing, no_video = e.reason == 'no such file', 'no video stream' in e.reason
        return dict(row, problem='missing' if missing else 'no video' if no_video else 'unreadable', detail=e.reason)
    count, seconds = len(reader), reader.duration
    row.update(frames=count, fps=round(reader.get_avg_fps(), 3), seconds=round(seconds, 3))
    if (start or 0) > seconds:
        return dict(row, problem='times', detail=f'the clip starts at {start:g} s, the video ends at {seconds:.3g} s')
    try:
        reader.get_batch([count - 1])
    except VideoDecodeError as e:
        return dict(row, problem='cut off', detail=f'of {count} frames the last one can\'t be decoded: {e.reason}')
    cut_off = next((note for note in reader.notes if note.startswith('cut off')), None)
    if cut_off:
        return dict(row, problem='cut off', detail=cut_off)
    notes = {'HDR' if note.startswith('HDR') else 'several tracks': note for note in reader.notes}
    reader.close()
    try:
        found, = read.read(path, [(start, end)])
    except VideoDecodeError as e:
        found = e
    if isinstance(found, VideoDecodeError):
        return dict(row, problem='unreadable', detail=found.reason)
    row.update(zip(('height', 'width'), found['original_shape']))
    if found['total_frames'] < read.num_frames:
        notes['short'] = f'{found["total_frames"]} of {read.num_frames} frames'
    if end is not None and end > seconds + _LATE:
        notes['ends early'] = f'the clip ends at {end:g} s, the video at {seconds:.2f} s'
    notes = {note: notes[note] for note in NOTES if notes.get(note)}
    return dict(row, notes=list(notes), detail='; '.join(notes.values()))
