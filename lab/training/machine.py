"""How a stack uses the machine: its threads, and the memory that it takes again and again."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Threads that share operations as small as a stack's mostly wait for each other: below some 500
# nets of the tutorial's they gain nothing. From there on they gain a quarter, if those that wait
# soon fall asleep (lab/__init__.py). Where they do not, beside another busy process, they burn the
# time that the others need, and all take ten times as long (benchmarks/speed.py).
WORTH_SHARING = 30_000 if "GOMP_SPINCOUNT" in os.environ else 60_000  # parameters of all nets
DEFAULT_THREADS = torch.get_num_threads()


@contextmanager
def threads_for(n_parameters: int) -> Iterator[None]:
    """Use one thread in the block if the work is small, unless the user has chosen how many."""
    chosen = "OMP_NUM_THREADS" in os.environ or torch.get_num_threads() != DEFAULT_THREADS
    if chosen or n_parameters > WORTH_SHARING:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(DEFAULT_THREADS)


def keep_memory() -> None:
    """Let what is freed stay with the process, where its C library is glibc.

    It would go back to the system after every operation on megabytes, and come again as pages to be
    filled with zeros: a tenth of the time at 900 nets, more the more there are. The numbers are
    those of mallopt(3): M_MMAP_THRESHOLD (at most 32 MB), M_TRIM_THRESHOLD and M_TOP_PAD.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc; on Windows there is no CDLL(None)
        return
    for option, size in ((-3, 2**25), (-1, 2**27), (-2, 2**24)):
        mallopt(option, size)
