"""Units of work, an optimizer on a task each, and where they run: here, in processes, on a cluster.

Any `concurrent.futures.Executor` will do; its workers have to be able to import this repository.
"""

import inspect
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
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from lab.specs import describe, parse_task
from lab.stacking import is_worth_compiling, train_all
from lab.sweeps import Sweep, sweep
from lab.trainings import Progress, trainings_of

import torch
from torch import Tensor
from torch.optim import Optimizer

from tasks import Task


@dataclass(frozen=True)
class Unit:
    """One optimizer on one task, at every rate from every seed."""

    task: Task | str  # or its name, which each worker looks up: what a file of yours makes of it
    make_optimizer: Callable[..., Optimizer]
    lrs: tuple[float, ...]
    seeds: tuple[int, ...]
    compiled: bool | None = None  # by default where it is worth it
    n_optimizers: int = 1  # of this task: they share what is compiled


@dataclass
class Result:
    """What became of a unit."""

    sweep: Sweep | None = None  # without the runs; None if nothing was complete
    default_lr: float | None = None  # the optimizer's own
    default_losses: Tensor | None = None  # held out (seeds,), at that rate
    rates: list[float] = field(default_factory=list)  # at each step, from the best one on
    seconds: float = 0.0
    note: str = ""
    remarks: list[str] = field(default_factory=list)
    error: Exception | None = None


ALONE = threading.Lock()  # torch's generator and number of threads are a process's


def run_unit(unit: Unit) -> Result:
    """Train what the unit names, on one thread of torch's."""
    with ALONE:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return _run_unit(unit)
        finally:
            torch.set_num_threads(before)


def _run_unit(unit: Unit) -> Result:
    task = parse_task(unit.task) if isinstance(unit.task, str) else unit.task
    trainings = trainings_of(task, unit.seeds, unit.lrs)
    compiled = unit.compiled
    if compiled is None:
        compiled = is_worth_compiling(task, trainings, unit.n_optimizers)
    runs = sweep(task, trainings, unit.make_optimizer, compiled=compiled)
    swept = Sweep(runs)
    result = Result(swept.without_runs(), default_lr_of(unit.make_optimizer))
    result.rates = swept.rate_history()
    result.seconds, result.note, result.remarks = runs.seconds, runs.note(), runs.remarks
    if runs.error:
        result.error = RuntimeError(describe(runs.error))
    elif result.default_lr in result.sweep.lrs:
        row = result.sweep.lrs.index(result.default_lr)
        result.default_losses = result.sweep.held_out_losses[row]
    elif result.default_lr is not None:
        trainings = trainings_of(task, unit.seeds, [result.default_lr])
        runs = train_all(task, trainings, unit.make_optimizer, compiled=compiled)
        result.default_losses = runs.held_out_losses
        result.seconds += runs.seconds
    return result


def default_lr_of(make_optimizer: Callable[..., Optimizer]) -> float | None:
    """Return the learning rate that an optimizer has if none is named; None if there is none."""
    named = getattr(make_optimizer, "optimizer_class", make_optimizer)
    lr = inspect.signature(named).parameters.get("lr")
    return float(lr.default) if lr and isinstance(lr.default, int | float) else None


def results(
    units: dict[Any, Unit], executor: Executor | None, progress: Progress
) -> Iterator[tuple[Any, Result]]:
    """Run all units and yield (key, Result) of each as it is done.

    Without an executor they run here, one after the other. ConnectionError if the executor's
    workers are lost for good.
    """
    if executor is None:
        done = ((key, run_unit(unit)) for key, unit in units.items())
    else:
        done = _as_completed({executor.submit(run_unit, unit): key for key, unit in units.items()})
    yield from progress(done, len(units))


def _as_completed(futures: dict[Future, Any]) -> Iterator[tuple[Any, Result]]:
    while futures:
        # With a time limit, or Windows would not see a Ctrl-C meanwhile.
        done, _ = wait(futures, timeout=1.0, return_when="FIRST_COMPLETED")
        for future in sorted(done, key=Future.cancelled):
            key = futures.pop(future)
            try:
                yield key, future.result()
            except CancelledError:
                raise ConnectionError("the workers are gone") from None
            except Exception as error:  # whatever a worker may die of
                yield key, Result(note=f"failed: {describe(error)}", error=error)


# ---------------------------------------------------------------- processes


class Processes(Executor):
    """So many processes, each with a thread here that feeds it.

    One that dies takes only its own unit along, which is run again: a ProcessPoolExecutor of many
    gives up all that had begun. The end of the block ends them at once, whatever they do.
    """

    TRIES = 3

    def __init__(self, number: int):
        self.threads = ThreadPoolExecutor(number, initializer=leave_signals_to_the_main_thread)
        self.own = threading.local()
        self.ended = False

    def submit(self, function: Callable, /, *args, **kwargs) -> Future:
        return self.threads.submit(self._run, function, *args, **kwargs)

    def _run(self, function: Callable, *args, **kwargs) -> Any:
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
        multiprocessing.parent_process().join()
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
    try:
        yield executor
    finally:
        executor.shutdown(wait=False)
        client.close()


def open_executor(jobs: int, address: str | None) -> AbstractContextManager[Executor | None]:
    """Return what yields an executor: of the cluster there, of so many processes, or none."""
    if address:
        return dask_executor(address)
    return nullcontext() if jobs == 1 else Processes(jobs)
