"""Ctrl-C before a tool has come to ``run_cli``: no traceback, whatever of vop_mm is being imported."""
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.tools import ROOT

MOMENTS = (0., 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)  # seconds after the import has begun
TOOLS = [('tools/train.py', ), ('tools/dataset_converters/msrvtt.py', ), ('tools/data/make_demo.py', ),
         ('tools/analysis_tools/count_parameters.py', ), ('demo/app.py', ), ('-m', 'vop_mm.utils.torchrun')]
# Found by Python before anything is run: tells when the first line of vop_mm has been, and waits there with some luck.
WATCH = '''
import os, sys

class Watch:
    def find_spec(name, path=None, target=None):
        if name == 'vop_mm.utils':
            sys.meta_path.remove(Watch)
            os.write(1, b'.')
sys.meta_path.insert(0, Watch)
'''


def start(folder, *command, **env):
    """A tool, when the import of vop_mm has begun."""
    (folder / 'sitecustomize.py').write_text(WATCH)
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               cwd=ROOT, env={**os.environ, 'PYTHONPATH': f'{folder}:{ROOT}', **env},
                               stdin=subprocess.DEVNULL, start_new_session=True)
    assert process.stdout.read(1) == '.', process.stderr.read()
    return process


@pytest.mark.parametrize('tool', TOOLS, ids=lambda tool: tool[-1])
def test_at_any_moment(tool, tmp_path):
    """To the end of the import and beyond; where that is depends on the machine."""
    interrupted = 0
    for moment in MOMENTS:
        process = start(tmp_path, *tool)
        time.sleep(moment)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert 'Traceback' not in err and 'Exception ignored' not in err, (moment, err)
        if process.returncode == 130:
            assert err.endswith('interrupted\n') and err.count('interrupted') == 1, (moment, err)
            interrupted += 1
        else:  # it had said before that there are no arguments
            assert process.returncode == 2 or err.startswith(('usage', 'error: ')), (moment, err)
    assert interrupted


def test_of_a_launcher_s_processes_none_says_it(tmp_path):
    process = start(tmp_path, 'tools/train.py', VOP_MM_LAUNCHED='1')
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ('', '') and process.returncode == 130


SEND = 'import os, signal, threading\nsend = lambda: os.kill(os.getpid(), signal.SIGINT)\n'


@pytest.mark.parametrize('code', [
    'import vop_mm\nsend()',
    'from vop_mm import registry\nsend()',
    # a library's module that holds a tool's line is not the program
    'import types\nexec("import vop_mm\\nrun_cli = 1", vars(types.ModuleType("library")))\nsend()',
])
def test_a_program_that_merely_imports_vop_mm_gets_its_exception(code):
    code = f'{SEND}try:\n    ' + code.replace('\n', '\n    ') + "\nexcept KeyboardInterrupt:\n    print('mine')"
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, 'mine\n', '')


@pytest.mark.parametrize('handler, said', [('signal.SIG_IGN', ''), ("lambda *_: print('mine')", 'mine\n')])
def test_another_handler_stays(handler, said):
    code = f'{SEND}signal.signal(signal.SIGINT, {handler})\nimport vop_mm\nsend()\nif 0: run_cli()'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, said, '')


def test_a_program_whose_thread_imports_vop_mm():
    code = f'{SEND}def load():\n    import vop_mm\n    print(vop_mm.__version__)\n    run_cli = 1\n'
    code += 'run_cli = threading.Thread(target=load)\nrun_cli.start()\nrun_cli.join()'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout and not done.stderr
