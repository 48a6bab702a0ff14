"""How a stack uses the machine: its threads, and the memory that it takes again and again."""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

# Threads that share small operations mostly wait for each other. Those that wait soon fall asleep
# (lab/__init__.py), unless torch was imported first, as a notebook may have done: then, beside
# another busy process, they burn the time that the others need, and all take up to ten times as
# long (benchmarks/speed.py). So small work has one thread either way, and there a larger one, too.
FALLS_ASLEEP = "GOMP_SPINCOUNT" in os.environ
PATIENCE = 1 if FALLS_ASLEEP else 2
# Below some 500 nets of the tutorial's, a stack gains nothing from a second thread; from there on
# a quarter.
WORTH_SHARING = PATIENCE * 30_000  # parameters of all nets
# A net alone, two threads on two processors, by `work_of` in way.py: 0.8 times as quick at 0.3 to
# 12 million, 1.0 at 18, 1.2 at 55, 1.2 to 1.5 at 70, 1.4 at 110, 1.7 at 440 and at 540.
WORK_WORTH_SHARING = PATIENCE * 30e6
DEFAULT_THREADS = torch.get_num_threads()


def threads_for(n_parameters: int) -> AbstractContextManager[None]:
    """Use one thread in the block if a stack of so many is small."""
    return threads(lambda: n_parameters > WORTH_SHARING)


def threads_for_work(work: Callable[[], float]) -> AbstractContextManager[None]:
    """Use one thread in the block if a net's work is small; it is counted only if it matters."""
    return threads(lambda: work() > WORK_WORTH_SHARING)


@contextmanager
def threads(is_large: Callable[[], bool]) -> Iterator[None]:
    """Use one thread in the block unless the work is large, or the user has chosen how many."""
    chosen = "OMP_NUM_THREADS" in os.environ or torch.get_num_threads() != DEFAULT_THREADS
    if chosen or DEFAULT_THREADS == 1 or is_large():
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
