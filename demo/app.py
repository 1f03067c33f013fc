"""A web page that searches videos.

python demo/app.py [INDEX | NAME=INDEX ...]
"""
import argparse
import importlib.util
from pathlib import Path

from vop_mm.utils.cli import add_common_arguments, run_cli

ROOT = Path(__file__).resolve().parents[1]
_QUICKSTART = ('work_dirs/quickstart/index', 'work_dirs/quickstart_quick/index')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='A web page that searches videos by a sentence or a clip.')
    parser.add_argument('indexes', nargs='*', metavar='INDEX',
                        help='folder made by tools/index_videos.py, or NAME=FOLDER; the user of the page selects one '
                             '(default: the index of tools/quickstart.sh)')
    parser.add_argument('--texts', metavar='FILE', type=Path,
                        help='texts to compare uploaded clips with: one per line, or an annotation (.json). '
                             'Default: captions of the test split in the config of the index, if available')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on (default: 127.0.0.1, this machine)')
    parser.add_argument('--port', type=int, default=7860, help='0: any free port (default: 7860)')
    add_common_arguments(parser, '--device', '--import')
    parser.add_argument('--max-upload-mb', type=float, default=100, help='limit for uploads (default: 100)')
    parser.add_argument('--timeout', type=float, default=20, metavar='SECONDS',
                        help='time limit for decoding a file (default: 20)')
    parser.add_argument('--allow-host', metavar='NAME', action='append', default=[],
                        help='additional host name of the server, NAME or NAME:PORT; can be repeated. The address '
                             'and localhost are always accepted')
    parser.add_argument('--root-path', metavar='PATH', default='',
                        help='path of the page behind a reverse proxy, such as /search')
    parser.add_argument('--follow-links', action='store_true',
                        help='also serve videos outside of the video folder that links in it lead to')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.max_upload_mb <= 0 or args.timeout <= 0:
        raise ValueError('--max-upload-mb and --timeout must be more than 0')
    if importlib.util.find_spec('gradio') is None:
        raise ImportError('the page needs gradio: pip install -e ".[optional]"')
    indexes = name_indexes(args.indexes or [quickstart_index()])

    from vop_mm.config import import_custom_modules
    from vop_mm.search.page.collection import index_source, open_collections
    from vop_mm.search.page.server import serve
    from vop_mm.search.page.texts import gather_texts

    import_custom_modules(args.modules)
    sources = {name: index_source(index) for name, index in indexes.items()}  # each config is parsed once
    texts = gather_texts(args.texts, [source.cfg for source in sources.values()])
    collections = open_collections(indexes, args.device, args.timeout, args.follow_links, sources)
    serve(collections, texts, args.host, args.port, int(args.max_upload_mb * 2**20), args.timeout, args.allow_host,
          args.root_path)


def quickstart_index() -> Path:
    """Return the index that the quickstart made."""
    for path in _QUICKSTART:
        if (ROOT / path / 'catalogue.db').is_file():
            return ROOT / path
    raise FileNotFoundError('no index: name one, or create the index of the demo with bash tools/quickstart.sh')


def name_indexes(given: list) -> dict[str, Path]:
    """Return folders by name: the given one, or the method of the prompts."""
    from vop_mm.search.page.collection import default_name
    named: dict[str, Path] = {}
    for item in map(str, given):
        name, equals, folder = item.partition('=')
        if not equals or Path(item).is_dir():
            name, folder = default_name(item), item
            if name in named:
                name = f'{name} ({folder})'
        if not name or name in named:
            raise ValueError(f'{item}: each prompt set needs its own name: use NAME=FOLDER')
        named[name] = Path(folder)
    return named


if __name__ == '__main__':
    run_cli(main)
