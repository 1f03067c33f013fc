"""What a process does that was forked to train."""
import torch


def renew_thread_pool() -> None:
    """Make torch's pool of threads anew, first thing in a forked process.

    torch does so after a fork, but in a process whose parent has used the pool only at its own first use of it. Where
    two threads come to that at once, the process crashes with ``Invalid thread pool!`` (torch 2.14).
    """
    torch.set_num_threads(torch.get_num_threads())
