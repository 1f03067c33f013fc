"""Run a config in a subprocess, printing a line for every epoch and evaluation."""
import json
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from mmengine.config import Config

from vop_mm.utils.files import atomic_write
from vop_mm.utils.locks import locked

from .experiment import load_config, run_experiment, shorten

_RECALLS = {'t2v/R1': 't2v R@1', 'v2t/R1': 'v2t R@1'}
_NOT_METRICS = ('step', 'time', 'data_time')
_PATIENCE, _INTERVAL = 3., 0.3  # seconds


def run_apart(config: str, folder: str | Path, options: list[str] | None = None, epochs: int | None = None,
              test: bool = True, verbose: bool = False) -> dict:
    """Run a config in a subprocess.

    Finished runs are not repeated; interrupted ones continue.

    Args:
        config (str): Config file.
        folder (str | Path): Work directory. Gets ``config.json``, ``run.log``, ``result.json`` and, with a test, the
            embeddings as ``test_features.npz``.
        options (list[str], optional): As given to ``--cfg-options``.
        epochs (int, optional): Number of epochs, overriding the config.
        test (bool): Evaluate the test split, once. Defaults to True.
        verbose (bool): Print the whole log instead of a line for every epoch and evaluation. Defaults to False.

    Returns:
        dict: Result of :func:`~vop_mm.engine.experiment.run_experiment`.

    Raises:
        BlockingIOError: Another process is running in the folder.
        ValueError: The folder holds a run of another config.
        RuntimeError: The run failed; the message contains its error.
    """
    folder = Path(folder)
    result, log = folder / 'result.json', folder / 'run.log'
    cfg = shorten(load_config(config, options, str(folder)), epochs)
    with locked(folder / 'run.lock', f'another process is running {config} in {folder}'):
        _claim(folder, cfg)
        if result.is_file():
            print(f'    already finished: {result}')
        else:
            run_in_process(partial(_run, config, folder, options, epochs, test), log, f'{config} in {folder}',
                           partial(next, _new_text(log) if verbose else _new_lines(folder)))
    return json.loads(result.read_text())


def run_in_process(function: Callable[[], None], log: Path, what: str,
                   watch: Callable[[], object] = lambda: None) -> None:
    """Call a function in a fresh process, since MMEngine keeps loggers and hubs for the life of a process.

    Args:
        function (Callable): Picklable function to call.
        log (Path): File for the output of the process.
        what (str): Description of the task, for the error message.
        watch (Callable): Called repeatedly while the process runs, and once at the end.

    Raises:
        RuntimeError: The process failed; the message contains its error.
    """
    code = (f'import pickle, sys; sys.path[:] = {sys.path!r}; from vop_mm.utils.cli import run_cli; '
            f'run_cli(pickle.loads({pickle.dumps(function)!r}))')
    with log.open('w') as file:
        process = subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        try:
            while process.poll() is None:
                watch()
                time.sleep(_INTERVAL)
        except BaseException:
            process.send_signal(signal.SIGINT)  # lets it clean up
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
            process.kill()
            raise
    watch()
    if process.returncode:
        text = log.read_text(errors='replace')
        errors = [line[7:] for line in text.splitlines() if line.startswith('error: ')]
        raise RuntimeError(f'{what} failed: {errors[-1] if errors else f"see {log}: {text[-500:]}"}')


def refuse_options(options: list[str] | None, instead: dict[str, str]) -> None:
    """Refuse ``--cfg-options`` that a tool sets itself for each run, given as keys and the tool's own options."""
    for option in options or []:
        for key, own in instead.items():
            if option.startswith(f'{key}='):
                raise ValueError(f'{option}: use {own} instead')


def _claim(folder: Path, cfg: Config) -> None:
    """Write the config to a run's folder, or refuse a folder that holds a run of another config."""
    # these do not affect the result
    settings = {key: value for key, value in cfg.to_dict().items() if key not in ('work_dir', 'prompts_in_all_layers')}
    text = json.dumps(settings, indent=1, sort_keys=True, default=str)
    file = folder / 'config.json'
    if not file.is_file():
        with atomic_write(file, 'w') as out:
            out.write(text)
    elif file.read_text() != text:
        raise ValueError(f'{folder} contains a run of another version of {cfg.filename}: remove it, or choose '
                         'another --out')


def _run(config: str, folder: Path, options: list[str] | None, epochs: int | None, test: bool) -> None:
    cfg = shorten(load_config(config, options, str(folder)), epochs)
    run_experiment(cfg, folder / 'result.json', folder / 'test_features.npz' if test else None, test)


def _new_text(path: Path) -> Iterator[None]:
    """Print the text added to a file since the last step."""
    with path.open(errors='replace') as file:
        while True:
            print(file.read(), end='', flush=True)
            yield


def _new_lines(folder: Path) -> Iterator[None]:
    """Print a line for every new epoch and evaluation, read from the run's folder of scalars."""
    files = '*/vis_data/scalars.json'
    result, old, shown = folder / 'result.json', {*folder.glob(files)}, 0
    while True:
        items = [json.loads(line) for path in {*folder.glob(files)} - old
                 for line in path.read_text().splitlines(keepends=True) if line.endswith('\n')]
        if result.is_file():
            items.append(json.loads(result.read_text()).get('metrics', {}))
        # the last step of an epoch is recognized by the entry after it
        items = [item for item, behind in zip(items, [*items[1:], None])
                 if 'loss' not in item or behind is not None and behind.get('epoch') != item['epoch']]
        for item in items[shown:]:
            part = (f'epoch {item["epoch"]}, train' if 'loss' in item else
                    f'epoch {item["step"]}, val' if 'step' in item else 'test')
            if values := _describe(item):
                print(f'    {part}: {values}', flush=True)
        shown = len(items)
        yield


def _describe(item: dict) -> str:
    """Return the loss of a training step; of an evaluation R@1, and metrics other than those of retrieval."""
    if 'loss' in item:
        return f'loss {item["loss"]:.3f}'
    others = {key: key.replace('_', ' ') for key in item if '/' not in key and key not in _NOT_METRICS}
    return ', '.join(f'{name} {item[key]:.1f}' for key, name in (_RECALLS | others).items() if key in item)
