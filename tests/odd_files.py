"""Files that are called videos and aren't: FFmpeg would read other files, or wait, or run something."""
from pathlib import Path

from tests.videos import encode_video


def write_odd_files(folder: str | Path) -> tuple[dict[str, str], str]:
    """Write them.

    Returns:
        tuple[dict[str, str], str]: Their paths by what they are, and that of the video that some of them name.
    """
    folder = Path(folder)
    secret = encode_video(folder / 'secret.ts', 20, size=(96, 160))
    hls = f'#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n'
    sdp = ('v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n'
           'a=rtpmap:96 H264/90000\n')
    body = ('<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
            'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet><Representation id="1">'
            f'<BaseURL>file://{secret}</BaseURL></Representation></AdaptationSet></Period></MPD>')
    dash = '<?xml version="1.0"?>' + body
    packets = ''.join('G' + '#' * 187 for _ in range(6))  # what a transport stream looks like
    content = {
        'hls': hls,
        'hls_bom': '\ufeff' + hls,
        'hls_spaces': '\n ' + hls,
        'hls_key': hls.replace('#EXTINF', f'#EXT-X-KEY:METHOD=AES-128,URI="file://{secret}"\n#EXTINF'),
        'concat': f"ffconcat version 1.0\nfile '{secret}'\n",
        'sdp': sdp,
        'dash': dash,
        'subtitles': '1\n00:00:00,000 --> 00:00:01,000\nhi\n',
        'ass': '[Script Info]\nScriptType: v4.00+\n[Events]\nDialogue: 0,0:00:00.00,0:00:01.00,,,,,,,hi\n',
        'avisynth': f'DirectShowSource("{secret}")\n',
        'vapoursynth': f'import os\nos.remove("{secret}")\n',
        'ffmetadata': ';FFMETADATA1\ntitle=x\n',
        'html': '<html>404</html>' * 40,
        'box_of_text': 'aaaafree' + dash,
        # boxes as large as media data may be: FFmpeg gives such a file to DASH (mov steps back for a program stream)
        'box_in_a_comment': '<!--moovhdlraaaamhlrMPEG-->' + body,
        'box_before_zeros': '<!--mdat-->' + body + '\0' * 100,
        'box_in_an_instruction': '\n<?amdat a?>' + body,
        'ebml_of_text': '\x1aE\udcdf\udca3' + dash,
        'riff_of_text': 'RIFFaaaaAVI ' + dash,
        'tagged': 'ID3\x03\x00\x00\x00\x00\x00\x00' + hls,
        'image': '\udc89PNG\r\n\x1a\n' + '\0' * 100,
        'raw': '\0\0\0\1\x67' + 'x' * 500,
    }
    odd = folder / 'odd'
    odd.mkdir()
    paths = {}
    for kind, text in content.items():
        paths[kind] = str(odd / f'{kind}.mp4')
        Path(paths[kind]).write_bytes(text.encode(errors='surrogateescape'))
    # only a demuxer that was forced may see this one: it passes for a transport stream
    paths['hls_in_packets'] = str(odd / 'hls_in_packets.ts')
    Path(paths['hls_in_packets']).write_text(hls + packets)
    return paths, secret
