"""The launcher's status is that of the process that failed first, and it says one line of a Ctrl-C."""
import signal
import subprocess
import sys

import pytest

SCRIPT = '''
import os, signal, sys, time
from vop_mm.utils.cli import run_cli

def main():
    os.write(1, b'ready\\n')  # at once: the launcher makes Python write text and line end apart
    if os.environ['RANK'] == '0':
        time.sleep(60)
    %s

run_cli(main)
'''


def start(folder, body):
    (folder / 'rank.py').write_text(SCRIPT % body)
    return subprocess.Popen([sys.executable, '-m', 'vop_mm.utils.torchrun', '--standalone', '--nproc_per_node=2',
                             folder / 'rank.py'], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize(('body', 'status', 'says'), [
    ('return 3', 3, ''),
    ('raise ValueError("no such thing")', 1, 'error: ValueError: no such thing'),
    ('os.kill(os.getpid(), signal.SIGKILL)', 137, 'error: process 1 ended: Signal 9 (SIGKILL) received by PID'),
])
def test_status_of_the_one_that_failed(tmp_path, body, status, says):
    process = start(tmp_path, body)
    _, err = process.communicate(timeout=50)
    assert process.returncode == status and says in err and 'Traceback' not in err, err


@pytest.mark.parametrize(('sent', 'status', 'says'), [(signal.SIGINT, 130, 'interrupted\n'), (signal.SIGTERM, 143, '')])
def test_a_signal_to_the_launcher(tmp_path, sent, status, says):
    process = start(tmp_path, 'time.sleep(60)')
    for _ in range(2):  # both are past their imports
        assert process.stdout.readline() == 'ready\n'
    process.send_signal(sent)
    _, err = process.communicate(timeout=50)
    assert (process.returncode, err) == (status, says)
