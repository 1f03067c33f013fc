"""torchcodec in a process that finds FFmpeg's shared libraries: those that PyAV brings, or else the system's."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def link_ffmpeg(folder: Path) -> str:
    """A library path on which the libraries of PyAV's wheel have the names that torchcodec looks for."""
    import av

    libraries = Path(av.__file__).parents[1] / 'av.libs'
    for file in libraries.glob('lib*.so.*'):
        found = re.fullmatch(r'(lib(?:av|sw)\w+)-\w+\.so\.(\d+)\..*', file.name)
        if found:
            (folder / f'{found[1]}.so.{found[2]}').symlink_to(file)
    return os.pathsep.join([str(folder), str(libraries), os.environ.get('LD_LIBRARY_PATH', '')])


def run_with_torchcodec(code: str, argument, folder: Path):
    """Run code in which ``argument`` is defined, and which leaves its ``result``, both of which JSON can hold.

    Skips the test where torchcodec can't be used.
    """
    program = ('import json, sys\n'
               'from vop_mm.datasets.decoding import torchcodec_problem\n'
               'if torchcodec_problem():\n'
               '    print(json.dumps(dict(problem=torchcodec_problem())))\n'
               '    sys.exit()\n'
               f'argument = json.loads(sys.argv[1])\n{code}\n'
               'print(json.dumps(dict(result=result)))')
    env = {**os.environ, 'PYTHONPATH': f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'}
    for library_path in (link_ffmpeg(folder), env.get('LD_LIBRARY_PATH', '')):
        done = subprocess.run([sys.executable, '-c', program, json.dumps(argument)], capture_output=True, text=True,
                              cwd=ROOT, env={**env, 'LD_LIBRARY_PATH': library_path})
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout.splitlines()[-1])
        if 'result' in answer:
            return answer['result']
    return pytest.skip(answer['problem'])
