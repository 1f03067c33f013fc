"""Two threads of a forked process that come to torch's pool of threads at the same time."""
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

THREADS = r'''
#include <atomic>
#include <thread>
namespace at { void set_num_threads(int); }
extern "C" void together() {
    std::atomic<int> ready{0};
    auto go = [&] { for (ready++; ready < 2;); at::set_num_threads(1); };
    std::thread first(go), second(go);
    first.join();
    second.join();
}
'''
FORKS = '''
import ctypes, os, sys
import torch
from tests.forks import renew_thread_pool
together = ctypes.CDLL(sys.argv[1]).together
torch.set_num_threads(8)  # to make the pool anew takes a while
torch.get_num_threads()  # from here on torch's own hook doesn't
for renew in (lambda: None, renew_thread_pool):
    crashed = 0
    for _ in range(60):
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            renew()
            together()
            os._exit(0)
        crashed += os.waitpid(child, 0)[1] != 0
    print(crashed)
'''


@pytest.mark.skipif(shutil.which('g++') is None, reason='no C++ compiler')
def test_a_pool_that_was_renewed_is_there_for_both(tmp_path):
    libraries = Path(torch.__file__).parent / 'lib'
    (tmp_path / 'threads.cpp').write_text(THREADS)
    abi = f'-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}'
    subprocess.run(['g++', '-std=c++17', '-shared', '-fPIC', '-O1', abi, tmp_path / 'threads.cpp', '-o',
                    tmp_path / 'threads.so', f'-L{libraries}', '-ltorch_cpu', '-lc10', f'-Wl,-rpath,{libraries}'],
                   check=True)
    done = subprocess.run([sys.executable, '-c', FORKS, tmp_path / 'threads.so'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    without, renewed = map(int, done.stdout.split())
    assert renewed == 0
    if not without:
        pytest.skip('this torch does not crash without it either')
