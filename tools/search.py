"""Find moments in an index.

    python tools/search.py INDEX "a squid is talking"

The query is a sentence, a video (--video) or an image (--image).
"""
import argparse
import os
import sys
import warnings
from pathlib import Path

from vop_mm.utils.cli import add_common_arguments, run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Find moments of indexed videos by a sentence, a video or an image.')
    parser.add_argument('index', help='folder that tools/index_videos.py made')
    parser.add_argument('query', nargs='?', help='a sentence')
    parser.add_argument('--video', metavar='FILE', help='search by a video instead')
    parser.add_argument('--image', metavar='FILE', help='search by an image instead')
    parser.add_argument('-k', type=int, default=5, help='how many (default: 5)')
    parser.add_argument('--all-moments', action='store_true',
                        help='show every moment that fits, not only the best one of each video')
    parser.add_argument('--rerank', type=int, default=100, metavar='N',
                        help='nearest moments that a head which is no cosine puts in its own order (default: 100)')
    parser.add_argument('--json', action='store_true', help='print JSON in place of a table')
    parser.add_argument('--html', metavar='FILE', type=Path, help='write a page with a picture of each moment as well')
    parser.add_argument('--checkpoint', help='where the checkpoint is now (default: where it was)')
    add_common_arguments(parser, '--device', '--cfg-options')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if sum(item is not None for item in (args.query, args.video, args.image)) != 1:
        raise ValueError('search by a sentence, a --video or an --image: one of them')
    from vop_mm.utils.paths import require_file, require_folder
    require_folder(args.html)
    for path in (args.video, args.image):
        require_file(path, '')
    require_file(args.checkpoint)
    if not (Path(args.index) / 'catalogue.db').is_file():
        raise FileNotFoundError(f'no search index: {args.index}')

    from vop_mm.apis import UnknownWordsWarning, VideoSearcher
    from vop_mm.config import parse_options
    from vop_mm.search import unknown_words
    from vop_mm.search.video_searcher import check_query
    if args.query is not None:
        check_query(args.query)  # before a model is loaded

    retriever = VideoSearcher.from_index(args.index, args.checkpoint, device=args.device,
                                              cfg_options=parse_options(args.cfg_options or []))
    warnings.simplefilter('ignore', UnknownWordsWarning)  # printed below, in a line without the path of this file
    hits = retriever.search(args.query, args.index, args.k, video=args.video, image=args.image,
                            merge=not args.all_moments, rerank=args.rerank)
    what = args.query or args.video or args.image
    note = unknown_words.describe(retriever.unknown_words(args.query or ''))
    if note:
        print(note, file=sys.stderr)
    if args.html is not None:
        from vop_mm.search.result_page import write_search_page
        write_search_page(args.html, what, hits, note)
        print(f'wrote {args.html}', file=sys.stderr)
    if args.json:
        import dataclasses
        import json
        print(json.dumps([dataclasses.asdict(hit) for hit in hits], indent=1))
    else:
        _print_table(hits)
    return 0


def _print_table(hits: list) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vop_mm.search.result_page import moment
    table = Table()
    for title in ('', 'score', 'moment'):
        table.add_column(title, justify='right', no_wrap=True)
    table.add_column('video', overflow='fold')
    here = os.path.join(os.getcwd(), '')
    for rank, hit in enumerate(hits, 1):
        name = hit.path.removeprefix(here)
        # Text: square brackets in a name are not markup; names that would move the cursor are printed as repr
        name = name if name.isprintable() else repr(name)
        table.add_row(str(rank), f'{hit.score:.3f}', moment(hit.start, hit.end), Text(name))
    Console().print(table)


if __name__ == '__main__':
    run_cli(main)
