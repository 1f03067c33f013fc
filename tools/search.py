"""Find moments in an index.

    python tools/search.py INDEX "a squid is talking"

The query is a sentence, a video (--video), an image (--image), or each line of a file (--queries).
"""
import argparse
import os
import sys
import warnings
from pathlib import Path

from vop_mm.utils.cli import add_common_arguments, run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Find moments of indexed videos by a sentence, a video or an image.')
    parser.add_argument('index', help='folder made by tools/index_videos.py')
    parser.add_argument('query', nargs='?', help='a sentence')
    parser.add_argument('--queries', metavar='FILE', help='search by each line of a text file instead')
    parser.add_argument('--video', metavar='FILE', help='search by a video instead')
    parser.add_argument('--image', metavar='FILE', help='search by an image instead')
    parser.add_argument('-k', type=int, default=5, help='number of results (default: 5)')
    parser.add_argument('--all-moments', action='store_true',
                        help='show every matching moment, not only the best one of each video')
    parser.add_argument('--rerank', type=int, default=100, metavar='N',
                        help='number of nearest moments to re-rank, for heads that are not a cosine (default: 100)')
    parser.add_argument('--json', action='store_true',
                        help='print JSON instead of a table: a list of results; with --queries, a list of objects with '
                             'a query and its hits')
    parser.add_argument('--html', metavar='FILE', type=Path, help='also write a page with a picture of each moment')
    parser.add_argument('--checkpoint', help='current path of the checkpoint (default: its original path)')
    add_common_arguments(parser, '--device', '--cfg-options', '--import')
    args = parser.parse_args()
    if args.queries is not None and args.html is not None:
        parser.error('--html shows the results of one query, not of --queries')
    return args


def main() -> int:
    args = parse_args()
    if sum(item is not None for item in (args.query, args.queries, args.video, args.image)) != 1:
        raise ValueError('search by exactly one of a sentence, --queries, --video or --image')
    from vop_mm.utils.paths import require_file, require_folder
    require_folder(args.html)
    for path in (args.queries, args.video, args.image):
        require_file(path, '')
    require_file(args.checkpoint)
    if not (Path(args.index) / 'catalogue.db').is_file():
        raise FileNotFoundError(f'no search index: {args.index}')

    from vop_mm.apis import UnknownWordsWarning, VideoSearcher
    from vop_mm.config import import_custom_modules, parse_options
    from vop_mm.search import unknown_words
    from vop_mm.search.video_searcher import check_query
    query = read_queries(args.queries) if args.queries is not None else args.query
    texts = query if isinstance(query, list) else [] if query is None else [query]
    for text in texts:
        check_query(text)  # before a model is loaded

    import_custom_modules(args.modules)
    searcher = VideoSearcher.from_index(args.index, args.checkpoint, device=args.device,
                                        cfg_options=parse_options(args.cfg_options or []))
    warnings.simplefilter('ignore', UnknownWordsWarning)  # printed below, in a line without the path of this file
    found = searcher.search(query, args.index, args.k, video=args.video, image=args.image,
                            merge=not args.all_moments, rerank=args.rerank)
    note = unknown_words.describe(searcher.unknown_words(texts))
    if note:
        print(note, file=sys.stderr)
    if args.html is not None:
        from vop_mm.search.result_page import write_result_page
        write_result_page(args.html, query or args.video or args.image, found, note)
        print(f'wrote {args.html}', file=sys.stderr)
    if args.json:
        import json
        plain = [dict(query=text, hits=list(map(vars, hits))) for text, hits in zip(texts, found)] \
            if args.queries is not None else list(map(vars, found))
        print(json.dumps(plain, indent=1))
    elif args.queries is None:
        print_table(found)
    else:
        for text, hits in zip(texts, found):
            print_table(hits, text)
    return 0


def read_queries(path: str) -> list[str]:
    """Read the non-empty lines of a text file."""
    try:
        lines = Path(path).read_text(encoding='utf-8-sig').splitlines()
    except UnicodeDecodeError:
        raise ValueError(f'{path} is not a text file (UTF-8)') from None
    queries = [line.strip() for line in lines if line.strip()]
    if not queries:
        raise ValueError(f'{path} contains no queries')
    return queries


def print_table(hits: list, title: str | None = None) -> None:
    """Print one row per hit."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vop_mm.visualization.html import moment
    table = Table(title=None if title is None else Text(title), title_justify='left')
    for column in ('', 'score', 'moment'):
        table.add_column(column, justify='right', no_wrap=True)
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
