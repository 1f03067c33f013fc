"""What a process does that was forked to train."""
import torch


def renew_thread_pool() -> None:
    """Make torch's pool of threads anew, first thing in a forked process.

    torch does so at the pool's first use after a fork. Where two threads come to it at once, the process crashes with
    ``Invalid thread pool!`` (torch 2.14).
    """
    torch.set_num_threads(torch.get_num_threads())
