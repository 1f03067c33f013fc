"""A run of a config in a process of its own, shown as a line for every epoch and evaluation."""
import json
import multiprocessing
import os
import re
import signal
import time
from pathlib import Path
from typing import TextIO

from mmengine.config import Config

from vop_mm.utils.cli import run_cli
from vop_mm.utils.files import atomic_write
from vop_mm.utils.forks import renew_thread_pool
from vop_mm.utils.locks import locked

from .experiment import load_config, run_experiment, shorten

_SHOWN = (('loss', 'loss', '.3f'), ('t2v/R1', 't2v R@1', '.1f'), ('v2t/R1', 'v2t R@1', '.1f'),
          ('pair_accuracy', 'pair accuracy', '.1f'))
_PATIENCE = 3.  # seconds


def run_apart(config: str, folder: str | Path, options: list[str] | None = None, epochs: int | None = None,
              test: bool = True, verbose: bool = False) -> dict:
    """Run a config where nothing of an earlier run is left: MMEngine keeps loggers and hubs for a process's life.

    What is there is not run again, what was interrupted goes on.

    Args:
        config (str): The config file.
        folder (str | Path): Work directory. Gets ``config.json``, ``run.log``, ``result.json`` and, of a test, the
            embeddings as ``test_features.npz``.
        options (list[str], optional): As given to ``--cfg-options``.
        epochs (int, optional): Train this long, whatever the config says.
        test (bool): Read the test split, once. Defaults to True.
        verbose (bool): Show the whole log. Defaults to False.

    Returns:
        dict: What :func:`~vop_mm.apis.experiment.run_experiment` returns.

    Raises:
        BlockingIOError: Another process does the same in the folder.
        ValueError: The folder holds a run of another config.
        RuntimeError: The run failed; the message says with what.
    """
    folder = Path(folder)
    result, log = folder / 'result.json', folder / 'run.log'
    cfg = load_config(config, options, str(folder))
    if epochs:
        shorten(cfg, epochs)
    with locked(folder / 'run.lock', f'another process is running {config} in {folder}'):
        _claim(folder, cfg)
        if result.is_file():
            print(f'    is there: {result}', flush=True)
            return json.loads(result.read_text())
        with log.open('w+') as file:
            # forked, so that the libraries are imported once
            process = multiprocessing.get_context('fork').Process(target=_run, args=(cfg, result, log, test))
            process.start()
            try:
                _follow(process, file, verbose)
            except BaseException:
                os.kill(process.pid, signal.SIGINT)  # it may clean up
                process.join(_PATIENCE)
                process.kill()
                raise
    if process.exitcode != 0 or not result.is_file():
        errors = [line for line in log.read_text().splitlines() if line.startswith('error: ')]
        raise RuntimeError(f'{config} in {folder} failed: {errors[-1][7:] if errors else "see " + str(log)}')
    return json.loads(result.read_text())


def refuse_options(options: list[str] | None, instead: dict[str, str]) -> None:
    """Refuse options of the config that a tool sets itself for each run.

    Args:
        options (list[str], optional): As given to ``--cfg-options``.
        instead (dict[str, str]): Keys, and the tool's own option for each.

    Raises:
        ValueError: One of them is there.
    """
    for option in options or []:
        for key, own in instead.items():
            if option.startswith(f'{key}='):
                raise ValueError(f'{option}: {own} says that here')


def _claim(folder: Path, cfg: Config) -> None:
    """Leave the config in a run's folder, or refuse a folder that another config was run in."""
    # neither changes what comes out
    settings = {key: value for key, value in cfg.to_dict().items() if key not in ('work_dir', 'prompts_in_all_layers')}
    text = json.dumps(settings, indent=1, sort_keys=True, default=str)
    file = folder / 'config.json'
    if not file.is_file():
        with atomic_write(file, 'w') as out:
            out.write(text)
    elif file.read_text() != text:
        raise ValueError(f'{folder} holds a run of another config than {cfg.filename} is now: remove it, or name '
                         'another --out')


def _run(cfg: Config, result: Path, log: Path, test: bool) -> None:
    with log.open('a') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    renew_thread_pool()
    dump = result.with_name('test_features.npz') if test else None
    run_cli(lambda: run_experiment(cfg, result, dump, test) and None)


def _follow(process: multiprocessing.Process, log: TextIO, verbose: bool) -> None:
    """Print what a run writes to its log, or of that a line for every epoch and evaluation, until it ends."""
    rest = ''
    while True:
        alive = process.is_alive()
        *lines, rest = (rest + log.read()).split('\n')
        for line in lines:
            if verbose:
                print(line, flush=True)
            elif found := re.search(r'Epoch\((train|val|test)\) (?:\[(\d+)\])?\[ *(\d+)/(\d+)\] (.*)', line):
                part, epoch, step, steps, values = found.groups()
                values = dict(re.findall(r'(\S+): (\S+)', values))
                shown = [f'{name} {float(values[key]):{form}}' for key, name, form in _SHOWN if key in values]
                if step == steps and shown:
                    print(f'    {part if epoch is None else f"epoch {epoch}, {part}"}: {", ".join(shown)}', flush=True)
        if not alive:
            break
        time.sleep(0.3)
    process.join()
