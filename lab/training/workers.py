"""Workers: processes here, or a cluster.

Any `concurrent.futures.Executor` will do; its workers have to be able to import this repository.
Where it has a `number`, it has so many.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import (
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, TypeVar

from lab.outcome import describe

T = TypeVar("T")


# ---------------------------------------------------------------- processes


class Processes(Executor):
    """So many processes, each with a thread here that feeds it.

    One that dies takes only its own job along, which is run again: a ProcessPoolExecutor of many
    gives up all that had begun. The end of the block ends them at once, whatever they do.
    """

    TRIES = 3

    def __init__(self, number: int):
        self.number = number
        self.threads = ThreadPoolExecutor(number, initializer=leave_signals_to_the_main_thread)
        self.own = threading.local()
        self.ended = False

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        return self.threads.submit(self._run, function, *args, **kwargs)

    def _run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        for _ in range(self.TRIES):
            if self.ended:
                raise CancelledError
            if not hasattr(self.own, "pool"):
                # A new interpreter, as torch's threads do not survive a fork.
                context = multiprocessing.get_context("spawn")
                self.own.pool = ProcessPoolExecutor(1, context, initializer=end_with_parent)
            try:
                return self.own.pool.submit(function, *args, **kwargs).result()
            except BrokenProcessPool:
                del self.own.pool
        raise RuntimeError(f"its process was killed {self.TRIES} times")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.ended = True
        for child in multiprocessing.active_children():
            child.kill()
        self.threads.shutdown(wait, cancel_futures=True)


def leave_signals_to_the_main_thread() -> None:
    """Block Ctrl-C in this thread and in the processes that it starts, where that can be had.

    The main thread ends them; a terminal would send it to each of them, too.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def end_with_parent() -> None:
    """Have this process end when its parent does, however that ends."""

    def watch() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# ---------------------------------------------------------------- a cluster


@contextmanager
def dask_executor(address: str) -> Iterator[Executor]:
    """Yield an executor of the Dask cluster whose scheduler is at the address.

    ConnectionError if nothing answers within some seconds.
    """
    from distributed import Client

    for name in logging.root.manager.loggerDict:
        if name.startswith("distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # or they print tracebacks
    try:
        client = Client(address, timeout=5, set_as_default=False)
    except OSError as error:
        raise ConnectionError(f"no scheduler answers at {address}: {describe(error)}") from None
    executor = client.get_executor(pure=False)
    executor.number = sum(client.nthreads().values())
    try:
        yield executor
    finally:
        with suppress(Exception):  # as where the cluster is gone
            executor.shutdown(wait=False)
            client.close()


def open_executor(jobs: int, address: str | None) -> AbstractContextManager[Executor | None]:
    """Return what yields an executor: of the cluster there, of so many processes, or none."""
    if address:
        return dask_executor(address)
    return nullcontext() if jobs == 1 else Processes(jobs)
