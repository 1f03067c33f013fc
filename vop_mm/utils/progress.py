"""Progress of what is long."""
import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(show: bool, what: str) -> Iterator[Callable]:
    """A bar on stderr.

    Args:
        show (bool): False: none.
        what (str): Stands before it.

    Yields:
        Callable: To be told how many of how many are done, and which was last.
    """
    if not show:
        yield lambda done, total, name='': None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    columns = TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total, name='': bar.update(task, completed=done, total=total)
