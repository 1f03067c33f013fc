"""Run a target on one input in a process that may die, and judge what it did."""
import faulthandler
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.forks import renew_thread_pool
from vop_mm.utils.cli import run_cli

from .watch import watch_this_process

_MAX_LINE = 600
_MAX_FILE = 512 << 20
FAILURES = ('ran code', 'touched outside', 'connected', 'crashed', 'hung', 'traceback', 'no clear line',
            'names no file', 'wrong result')


class WrongResult(Exception):
    """A target took an input, and what it made of it can't be right."""


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        about (str): What was done to it.
        names (tuple[str, ...]): One of them has to stand in an error.
        options (dict): For the target.
    """
    about: str
    names: tuple[str, ...]
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        name (str): For the command line.
        make (Callable): ``make(rng, world, folder) -> Case`` writes an input into the folder. The same ``rng`` makes
            the same input.
        target (Callable): ``target(world, folder, case)`` reads it as users do. What it raises is what a tool would.
        prepare (Callable): ``prepare(world)`` makes what all inputs start from.
        seconds (float): Time limit.
        memory (int): Bytes that it may take.
    """
    name: str
    make: Callable
    target: Callable
    prepare: Callable = lambda world: None
    seconds: float = 20.
    memory: int = 2 << 30


@dataclass(frozen=True)
class Outcome:
    """What became of an input: ``'accepted'``, ``'refused'`` or one of ``FAILURES``; why; and what the input was."""
    verdict: str
    detail: str
    about: str

    @property
    def is_failure(self) -> bool:
        return self.verdict in FAILURES


def run_case(kind: Kind, seed: str, world, folder: Path) -> Outcome:
    """Make an input and let the target read it, in a child process.

    Args:
        kind (Kind): Of input.
        seed (str): For the generator.
        world (World): What inputs start from, with its canaries armed.
        folder (Path): Where the input lies, the only place that may change. It is emptied first.

    Returns:
        Outcome: What became of it.

    Raises:
        RuntimeError: The input could not be made: a mistake of the fuzzer.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with tempfile.TemporaryFile('w+') as said, tempfile.TemporaryFile('a+b') as log:
        ours, its = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(ours)
                _serve(kind, seed, world, folder, its, said.fileno(), log.fileno())
            finally:
                os._exit(70)
        os.close(its)
        status = _wait(child, kind.seconds)
        with os.fdopen(ours, 'rb') as pipe:
            reports = [json.loads(line) for line in pipe.read().splitlines()]
        world.counts.update(reports[-1].get('counts') if reports else None)
        log.seek(0)
        said.seek(0)
        noted = log.read().decode(errors='replace').splitlines() + world.canaries.findings()
        return _judge(reports, status, noted, said.read(), kind.seconds)


def make_input(kind: Kind, seed: str, world, folder: Path) -> Case:
    """Only make an input, in this process."""
    folder.mkdir(parents=True)
    return kind.make(random.Random(seed), world, folder)


def _serve(kind: Kind, seed: str, world, folder: Path, report: int, said: int, log: int) -> None:
    """What the child does."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout, sys.stderr = open(1, 'w', closefd=False, errors='replace'), open(2, 'w', closefd=False,
                                                                               errors='replace')
    renew_thread_pool()
    faulthandler.disable()  # a crash is judged, and needs no pages of stacks
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def tell(**what) -> None:
        os.write(report, json.dumps(what).encode() + b'\n')

    try:
        case = kind.make(random.Random(seed), world, folder)
    except BaseException:
        tell(broken=' '.join(traceback.format_exc().split()[-60:]))
        os._exit(1)
    tell(about=case.about, names=case.names)
    scratch = folder / 'scratch'
    scratch.mkdir(exist_ok=True)
    os.environ.update(HOME=str(scratch), TMPDIR=str(scratch), XDG_CACHE_HOME=str(scratch))
    tempfile.tempdir = str(scratch)
    os.chdir(folder)
    sys.path.append(str(world.canaries.folder))  # where a module would be found by its name
    os.environ['VOP_MM_MILVUS_TOKEN'] = 'root:secret'
    world.counts.clear()  # those of the inputs before
    _limit(kind.memory)
    watch_this_process(log, str(folder))
    try:
        run_cli(lambda: kind.target(world, folder, case) and None)
    except SystemExit as e:
        tell(status=e.code, counts=world.counts)
    except WrongResult as e:
        tell(wrong=str(e), counts=world.counts)
    except BaseException as e:
        where = traceback.extract_tb(e.__traceback__)[-1]
        tell(traceback=f'{type(e).__name__}: {e!s:.200} ({Path(where.filename).name}:{where.lineno})')
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _printed(name: str) -> str:
    """A name as it is printed: on one line, and nothing in it acts on a terminal."""
    return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in ' '.join(name.split()))


def _limit(memory: int) -> None:
    with open('/proc/self/statm') as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_FILE, _MAX_FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _wait(child: int, seconds: float) -> int | None:
    """Status of the child, negative for a signal; None where it did not end. All of its group is gone afterwards."""
    handle = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        ended = poll.poll(1000 * seconds)
    finally:
        os.close(handle)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(child, signal.SIGKILL)  # before it led a group; or it is waited for below
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if ended else None


def _judge(reports: list[dict], status: int | None, noted: list[str], said: str, seconds: float) -> Outcome:
    first, last = (reports[0], reports[-1]) if reports else ({}, {})
    if 'about' not in first:
        raise RuntimeError(f'the input could not be made: {first.get("broken") or said or status}')
    about, names = first['about'], first['names']
    for begin, verdict in (('ran:', 'ran code'), ('outside:', 'touched outside'), ('connected:', 'connected')):
        found = [line for line in noted if line.startswith(begin)]
        if found:
            return Outcome(verdict, '; '.join(dict.fromkeys(found[:4])), about)
    if status is None:
        return Outcome('hung', f'not done after {seconds:g} s', about)
    if status < 0:
        return Outcome('crashed', signal.Signals(-status).name, about)
    if 'traceback' in last:
        return Outcome('traceback', last['traceback'], about)
    if 'wrong' in last:
        return Outcome('wrong result', last['wrong'], about)
    if 'status' not in last:
        return Outcome('crashed', f'exit status {status} without an answer: {said[-300:]}', about)
    if 'Traceback (most recent call last)' in said:
        return Outcome('traceback', f'printed: {said.strip()[-300:]}', about)
    errors = [line[7:] for line in said.splitlines() if line.startswith('error: ')]
    if not last['status']:
        return Outcome('accepted', '', about)
    if last['status'] != 1 or len(errors) != 1 or not errors[0].strip() or len(errors[0]) > _MAX_LINE:
        return Outcome('no clear line', f'status {last["status"]}, {len(errors)} lines: {said[-300:]!r}', about)
    if not errors[0].isprintable():
        return Outcome('no clear line', f'characters that act on a terminal: {errors[0]!r:.300}', about)
    if not any(name in errors[0] for name in (*names, *map(_printed, names))):
        return Outcome('names no file', f'{errors[0]:.300}', about)
    return Outcome('refused', errors[0], about)
