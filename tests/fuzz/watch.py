"""What a process did that reading data must not do: run code, write elsewhere, open what is not its own, connect."""
import collections
import ctypes
import dataclasses
import os
import shutil
import socket
import struct
import sys
import types
from pathlib import Path

# Python's own events (sys.addaudithook); none of them belongs to reading data
_NEVER = frozenset((
    'os.system', 'os.exec', 'os.posix_spawn', 'os.spawn', 'os.startfile', 'subprocess.Popen', 'pty.spawn',
    'webbrowser.open', 'urllib.Request', 'http.client.connect', 'ftplib.connect', 'smtplib.connect',
    'sqlite3.load_extension', 'socket.bind', 'socket.sendto', 'code.__new__', 'cpython.run_command'))
# events of files, and which of their arguments are paths that are changed
_CHANGES = {
    'os.remove': (0, ), 'os.rename': (0, 1), 'os.mkdir': (0, ), 'os.rmdir': (0, ), 'os.link': (1, ),
    'os.symlink': (1, ), 'os.chmod': (0, ), 'os.chown': (0, ), 'os.truncate': (0, ), 'os.utime': (0, ),
    'os.setxattr': (0, ), 'os.chdir': (0, ), 'shutil.rmtree': (0, ), 'shutil.move': (0, 1), 'shutil.copyfile': (1, ),
    'sqlite3.connect': (0, ), 'tempfile.mkstemp': (0, ), 'tempfile.mkdtemp': (0, )}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_HARMLESS = ('/dev/null', '/dev/shm/', '/proc/self/')
# modules that make methods from text of their own
_MAKE_CODE = frozenset((collections.__file__, dataclasses.__file__))
# not imported anywhere else, and named by inputs
MODULE, LOADED = 'fuzz_canary_module', 'fuzz_canary_loaded'
_FOREIGN = frozenset((MODULE, LOADED, 'this', 'hubconf', 'mmdet', 'mmpretrain'))
_IN_OPEN, _IN_MODIFY, _IN_ATTRIB = 0x20, 0x2, 0x4
_IN_MOVED, _IN_CREATE, _IN_DELETE, _IN_SELF = 0xC0, 0x100, 0x200, 0xC00
_EVENTS = {_IN_OPEN: 'opened', _IN_MODIFY: 'changed', _IN_ATTRIB: 'changed', 0x40: 'moved', 0x80: 'moved',
           _IN_CREATE: 'made', _IN_DELETE: 'removed'}


def watch_this_process(log: int, inside: str) -> None:
    """From here on note what this process and its children do that they must not do.

    Args:
        log (int): A file that gets a line for everything, opened to append.
        inside (str): The one folder that they may write to.
    """
    inside = os.path.realpath(inside)

    def note(*what) -> None:
        os.write(log, ' '.join(f'{part!s:.200}' for part in what).replace('\n', ' ').encode(errors='replace') + b'\n')

    def outside(path) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):  # a descriptor, which was opened before
            return False
        path = os.path.abspath(os.fsdecode(path))
        return path != inside and not path.startswith((inside + os.sep, *_HARMLESS)) and path != os.sep + ':memory:'

    def caller() -> str:
        return sys._getframe(2).f_code.co_filename

    def hook(event: str, args: tuple) -> None:
        if event == 'open':
            path, mode, flags = args
            if (flags & _WRITES or set(mode or '') & set('wax+')) and outside(path):
                note('outside: open', path, mode)
        elif event in _NEVER:
            # for the traceback of an error Cython makes code without content, named after PyAV's own files
            if not (event == 'code.__new__' and args[1].startswith('av/') and len(args[0]) < 30):
                note('ran:', event, args)
        elif event == 'exec':
            # code of files is imported code; of strings, somebody made it
            name = args[0].co_filename
            if name.startswith('<') and not name.startswith('<frozen') and caller() not in _MAKE_CODE:
                note('ran: exec', name, args[0].co_names, 'by', caller())
        elif event == 'import':
            if args[0].partition('.')[0] in _FOREIGN:
                note('ran: import', args[0])
        elif event == 'pickle.find_class':
            if args[0] in ('os', 'posix', 'subprocess', 'sys', MODULE, LOADED):
                note('ran: pickle', *args)
        elif event == 'socket.connect':
            if not isinstance(args[1], (str, bytes)):  # those are of this machine
                note('connected:', args[1])
        elif event == 'ctypes.dlopen':
            if isinstance(args[0], str) and args[0].startswith(inside):
                note('ran: dlopen', args[0])
        elif event in _CHANGES:
            for position in _CHANGES[event]:
                path = args[position]
                if not (event.startswith('sqlite3') and path == ':memory:') and outside(path):
                    note(f'outside: {event}', path)

    class Thing:

        def __init__(self, *args, **kwargs) -> None:
            note('ran:', LOADED, 'was built', kwargs)

    module = types.ModuleType(LOADED)
    module.Thing = Thing
    sys.modules[LOADED] = module
    sys.addaudithook(hook)


class Canaries:
    """Files that nobody may open, and a port that nobody may connect to.

    Native libraries don't tell Python what they open: the kernel is asked (inotify), and every file's state is
    compared.

    Args:
        folder (Path): Is made.
        guarded (Path): A folder whose files may be read, but not change.

    Attributes:
        port (int): Of this machine; it listens.
    """

    def __init__(self, folder: Path, guarded: Path) -> None:
        self.folder, self.guarded = folder, guarded
        folder.mkdir(parents=True)
        marker = f'open({str(folder / "ran")!r}, "w").close()\n'
        (folder / f'{MODULE}.py').write_text(f'{marker}class Thing:\n    pass\n')
        (folder / 'evil.py').write_text(f'{marker}x = 1\n')
        (folder / 'victim.txt').write_text('a file of somebody else\n' * 4000)
        self._listener = socket.create_server(('127.0.0.1', 0))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._notify = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._notify < 0:
            raise OSError(ctypes.get_errno(), 'inotify')
        self._before: dict = {}
        self._contents: dict[Path, bytes] = {}

    def arm(self) -> None:
        """Look at all files, and begin to listen. Called once everything is there."""
        mask = _IN_OPEN | _IN_MODIFY | _IN_ATTRIB | _IN_MOVED | _IN_CREATE | _IN_DELETE
        if self._libc.inotify_add_watch(self._notify, os.fsencode(self.folder), mask) < 0:
            raise OSError(ctypes.get_errno(), 'inotify')
        self._contents = {path: path.read_bytes() for path in self.folder.iterdir()}
        self._before = self._state()
        self.findings()

    def findings(self) -> list[str]:
        """What happened since the last call, one line each."""
        found = [f'outside: {what} {name}' for what, name in self._notified()]
        try:
            while True:
                connection, _ = self._listener.accept()
                connection.close()
                found.append(f'connected: to the port {self.port}')
        except BlockingIOError:
            pass
        now = self._state()
        for path in now.keys() | self._before.keys():
            if now.get(path) != self._before.get(path):
                found.append(f'outside: another state of {os.path.relpath(path, self.folder.parent)}')
        if (self.folder / 'ran').exists():
            found.insert(0, 'ran: the marker is there')
        if now != self._before:
            self._restore()
        return found

    def _restore(self) -> None:
        """As it was, for the next input."""
        for path in self.folder.iterdir():
            if path not in self._contents:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for path, content in self._contents.items():
            path.unlink(missing_ok=True)
            path.write_bytes(content)
        self._before = self._state()
        list(self._notified())  # of what was done here

    def _notified(self):
        seen = set()
        while True:
            try:
                content = os.read(self._notify, 1 << 16)
            except BlockingIOError:
                return
            while content:
                _, mask, _, size = struct.unpack_from('iIII', content)
                name = content[16:16 + size].rstrip(b'\0').decode(errors='replace')
                content = content[16 + size:]
                for bit, what in _EVENTS.items():
                    # a folder that is looked through isn't opened in vain, but it is no file
                    if mask & bit and (what, name) not in seen and name:
                        seen.add((what, name))
                        yield what, name

    def _state(self) -> dict[str, tuple]:
        state = {}
        for folder in (self.folder, self.guarded):
            for path in [folder, *folder.rglob('*')]:
                found = path.lstat()
                times = () if path.is_dir() else (found.st_mtime_ns, found.st_ctime_ns, found.st_size)
                state[str(path)] = (found.st_ino, found.st_mode, *times)
        return state
