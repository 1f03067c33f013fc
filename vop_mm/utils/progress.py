"""Progress bars."""
import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(show: bool, what: str) -> Iterator[Callable]:
    """Show a progress bar on stderr.

    Args:
        show (bool): False: show nothing.
        what (str): Label of the bar.

    Yields:
        Callable: Function of the number of finished items, the total, and the name of the last item.
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
