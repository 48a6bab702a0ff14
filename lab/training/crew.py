"""Who trains: this process, or a crew of workers; and what they have trained is kept.

What is handed out is a stack of nets, or some trainings that take their turn. Whether it is handed
out, and that it is then trained on one thread, depends on the work alone. So the numbers are the
same whoever trains, and in whichever order.
"""

import math
import pickle
import queue
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lab.outcome import Outcome, Progress, ProgressOf, describe, no_progress, saying, show_none
from lab.training import way
from lab.training.adapt import MakeOptimizer
from lab.training.datasets import device_of
from lab.training.keep import Keep, Unnamed, name_of, name_of_code, name_of_start
from lab.training.pieces import (
    Piece,
    Result,
    as_record,
    from_record,
    one_thread,
    pickled,
    run_piece,
    train_alone,
    train_stacked,
)
from lab.training.runs import Runs, Training, in_a_row, state_of
from lab.training.train import Alone
from lab.training.trials import Trial
from lab.training.way import stacks_of
from lab.training.workers import open_executor

import torch

from tasks import Task

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
R = TypeVar("R", bound=Outcome)

# Work is counted as way.py does it. What a step costs beside takes as long as so many operations; a
# worker starts in two seconds, which so many repay: some four seconds' work.
STEP = 1e7
WORTH_SHARING = 1e11
PIECE = 2e10  # trainings that take their turn go together up to so many


class Job(NamedTuple):
    """What is trained with one optimizer, or with its trials, to begin with."""

    task: Task
    trainings: Sequence[Training]
    make_optimizer: MakeOptimizer | Sequence[Trial]


class LostError(RuntimeError):
    """A worker died of a piece, or could not read it."""


class Crew(Alone):
    """Trains by the workers of an executor where that repays, and takes what is kept.

    Without either it is this process alone.
    """

    def __init__(self, executor: Executor | None = None, keep: Keep | None = None):
        self.executor, self.keep = executor, keep
        self.is_shared = False  # whether all work together is worth sharing
        self.stopped: BaseException | None = None  # why nothing more is trained
        self.turn = threading.Lock()  # of the one thread here that does more than wait
        self.known: dict[tuple[int, ...], tuple[object, Any]] = {}  # see `found`
        self.notes: dict[str, bool] = {}  # what is to be said, and whether it was

    def each(
        self, do: Callable[..., R], jobs: Mapping[K, Job], progress: ProgressOf = show_none
    ) -> Iterator[tuple[K, R]]:
        """Do all jobs; yield (key, result) of each, in order.

        `do(task, trainings, make_optimizer, progress=..., crew=...)` trains by `train_all`, as
        often as it likes, and hands on the crew. Ctrl-C ends it with what is done by then.
        ConnectionError if the workers are lost for good.
        """
        work = sum(work_of(job.task, job.trainings) for job in jobs.values())
        self.is_shared = len(jobs) > 1 and work >= WORTH_SHARING
        if self.is_shared and self.executor:
            yield from self._side_by_side(do, jobs, progress)
            return
        for key, job in jobs.items():
            with self.turn:
                result = do(*job, progress=progress(key), crew=self)
            yield key, result
            result.raise_if_interrupted()
            if self.stopped:
                raise self.stopped

    def _side_by_side(
        self, do: Callable[..., R], jobs: Mapping[K, Job], progress: ProgressOf
    ) -> Iterator[tuple[K, R]]:
        """Do jobs in threads, which wait for workers: one more than these, so that none is idle."""
        threads = ThreadPoolExecutor(getattr(self.executor, "number", 16) + 1)
        watched = {key: Watched(self) for key in jobs}

        def done(job: Job, watch: Watched) -> R:
            with self.turn:
                return do(*job, progress=watch, crew=self)

        futures = {key: threads.submit(done, job, watched[key]) for key, job in jobs.items()}
        for key, future in futures.items():
            future.add_done_callback(watched[key].end)
        try:
            with self.turn:
                for key in jobs:
                    self._follow(watched[key], progress(key))
                    result = futures.pop(key).result()
                    if watched[key].n_done or not self.stopped:
                        yield key, result
                    if self.stopped:
                        raise self.stopped
        except BaseException as error:
            self.stop(error)
            if isinstance(error, KeyboardInterrupt | ConnectionError):
                for key, future in futures.items():
                    if not future.cancel() and (result := future.result()) and watched[key].n_done:
                        yield key, result
            raise
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _follow(self, watch: "Watched", progress: Progress) -> None:
        """Show how far another thread has come, until it has ended."""

        def next_event() -> Any:
            with self.waiting():
                return watch.next_event()

        while begun := next_event():
            for _ in progress(iter(next_event, Watched.END), *begun):
                pass

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let other threads take their turn in the block."""
        self.turn.release()
        try:
            yield
        except KeyboardInterrupt as error:
            self.stopped = error  # before its turn comes: another may train until it sees that
            raise
        finally:
            self.turn.acquire()

    def stop(self, error: BaseException) -> None:
        """Train nothing more."""
        self.stopped = self.stopped or error
        if self.executor:
            with suppress(Exception):  # as where a cluster is gone
                self.executor.shutdown(wait=False)

    # ------------------------------------------------------------ what train_all asks for

    def at_once(
        self,
        task: Task,
        trainings: Sequence[Training],
        make_optimizer: MakeOptimizer,
        progress: Progress,
        every_epoch: bool,
    ) -> tuple[Runs | None, str]:
        """Take what is kept, or train all in stacks; or return None and why that cannot be."""
        stacks = stacks_of(task, trainings)
        is_shared = self.is_worth_sharing(task, trainings, len(stacks))
        order = Order(task, make_optimizer, every_epoch, True, is_shared)
        parts = self.parts(order, stacks, progress)
        if reasons := [part for part in parts if isinstance(part, str)]:
            return None, reasons[0]
        return self.whole(parts, trainings), ""

    def in_turn(
        self,
        task: Task,
        trainings: Sequence[Training],
        make_optimizer: MakeOptimizer,
        progress: Progress,
        every_epoch: bool,
    ) -> Runs:
        """Take what is kept, and train the others, each for itself."""
        is_shared = self.is_worth_sharing(task, trainings, len(trainings))
        order = Order(task, make_optimizer, every_epoch, False, is_shared)
        parts = self.parts(order, [[training] for training in trainings], progress)
        return self.whole(parts, trainings)

    def is_worth_sharing(self, task: Task, trainings: Sequence[Training], n_parts: int) -> bool:
        """Tell whether these are, or all work together is."""
        return self.is_shared or (n_parts > 1 and work_of(task, trainings) >= WORTH_SHARING)

    def whole(self, parts: Sequence[Result], trainings: Sequence[Training]) -> Runs:
        """Return the runs of all parts, with what ended the first that an error has ended."""
        runs = [part for part in parts if isinstance(part, Runs)]  # each of them is
        failed = next((part for part in runs if part.error), None)
        whole = in_a_row([part for part in runs if is_trained(part)] or runs[:1])
        if failed:
            step, seed = len(failed.losses) + 1, failed.trainings[0].seed
            stopped = failed.stopped
            if len(failed.trainings) == 1 < len(trainings):
                stopped = stopped.replace(f"at step {step}", f"at step {step} of seed {seed}", 1)
            whole = replace(whole, error=failed.error, stopped=stopped)
        whole.remarks += self.remarks()
        return whole

    def parts(
        self, order: "Order", groups: Sequence[Sequence[Training]], progress: Progress
    ) -> list[Result]:
        """Return what becomes of each group of trainings, in order; of none after a failure."""
        names = [self.name(order, group) for group in groups]
        parts = {
            k: part
            for k, group in enumerate(groups)
            if (part := self.kept(names[k], order, group)) is not None
        }
        missing = [k for k in range(len(groups)) if k not in parts]
        if order.is_shared and self.executor and missing and self.can_hand_out(order):
            done = self._by_workers(order, groups, missing)
        elif len(groups) == len(missing) == 1:  # it counts its steps
            done, progress = self._here(order, groups, missing, progress), no_progress
        else:
            done = self._here(order, groups, missing, no_progress)

        def trained() -> Iterator[Training]:
            for k in list(parts):
                yield from groups[k]
            for k, part in done:
                parts[k] = part
                self.put(names[k], part)
                yield from groups[k]

        try:
            for _ in progress(trained(), sum(map(len, groups)), "training"):
                pass
        except KeyboardInterrupt as error:
            self.stop(error)
        if self.stopped and (missing := [k for k in missing if k not in parts]):
            why = "interrupted" if isinstance(self.stopped, KeyboardInterrupt) else "stopped"
            why += f" after {len(parts)} of {len(groups)}" if len(groups) > 1 else ""
            parts[missing[0]] = untrained(order, groups[missing[0]][0], self.stopped, why)
        in_order = [parts[k] for k in sorted(parts)]
        ends = (k for k, part in enumerate(in_order, start=1) if is_failure(part))
        return in_order[: next(ends, len(in_order))]

    def _here(
        self,
        order: "Order",
        groups: Sequence[Sequence[Training]],
        missing: Sequence[int],
        progress: Progress,
    ) -> Iterator[tuple[int, Result]]:
        """Train these groups in this process; yield each one's number and result."""
        for k in missing:
            if self.stopped:
                return
            with one_thread() if order.is_shared else nullcontext():
                part = order.train(groups[k], progress)
            yield k, part
            if isinstance(part, Runs) and not is_trained(part):
                return

    def _by_workers(
        self, order: "Order", groups: Sequence[Sequence[Training]], missing: Sequence[int]
    ) -> Iterator[tuple[int, Result]]:
        """Have these groups trained; yield each one's number and result as it comes."""
        assert self.executor
        size = 1 if order.at_once else max(1, int(PIECE / work_of(order.task, groups[0])))
        futures: dict[Future[bytes], Sequence[int]] = {}
        for first in range(0, len(missing), size):
            numbers = missing[first : first + size]
            piece = order.piece([training for k in numbers for training in groups[k]])
            try:
                futures[self.executor.submit(run_piece, piece)] = numbers
            except Exception:  # as of an executor that was shut down
                self.stop(ConnectionError("the workers are gone"))
                return
        is_last = False
        while futures and not is_last:
            is_last = bool(self.stopped)  # what is done by then is taken
            # With a time limit, or Windows would not see a Ctrl-C meanwhile.
            with saying("the workers start, and compile where that pays"), self.waiting():
                limit = 0 if is_last else 0.5
                done, _ = wait(futures, timeout=limit, return_when="FIRST_COMPLETED")
            for future in sorted(done, key=was_given_up):
                if not (numbers := futures.pop(future, ())):
                    continue  # it would have come after a failure
                if was_given_up(future):
                    self.stop(ConnectionError("the workers are gone"))
                    break
                parts = results_of(future, order, [groups[k] for k in numbers])
                yield from zip(numbers, parts, strict=True)
                if is_failure(parts[-1]):
                    for other in [other for other in futures if futures[other][0] > numbers[0]]:
                        other.cancel()
                        futures.pop(other)

    # ------------------------------------------------------------ what is kept, and what is said

    def name(self, order: "Order", group: Sequence[Training]) -> str | None:
        """Return the name of a group's result; None if it has none, or nothing is kept."""
        if not self.keep:
            return None
        threads = 1 if order.is_shared else torch.get_num_threads()
        task, make_optimizer = order.task, order.make_optimizer
        try:
            code = self.found((task, make_optimizer), name_of_code)
            starts = [
                (
                    self.found((task, t.dataset), lambda *_, t=t: name_of_start(task, t)),
                    *(t.lr, t.settings),
                )
                for t in group
            ]
            return name_of(code, starts, order.at_once, order.every_epoch, threads)
        except Unnamed as finding:
            self.note(f"not kept: {finding}")
            return None

    def found(self, things: tuple[object, ...], find_out: Callable[..., T]) -> T:
        """Return what was found out about these things, which are the same objects, or find out."""
        key = tuple(map(id, things))
        if key not in self.known:
            self.known[key] = things, find_out(*things)
        return self.known[key][1]

    def kept(self, name: str | None, order: "Order", group: Sequence[Training]) -> Result | None:
        """Return the result that is kept under the name, if there is one."""
        if self.keep and name:
            return self.keep.load(name, partial(from_record, task=order.task, trainings=group))
        return None

    def put(self, name: str | None, part: Result) -> None:
        """Keep a result, unless an error ended it."""
        if self.keep and name and not (isinstance(part, Runs) and part.error):
            self.keep.save(name, as_record(part))

    def can_hand_out(self, order: "Order") -> bool:
        """Tell whether other processes can read what is to be trained; else say why not."""
        try:
            unknown = b"__main__" in order.piece([]).task + order.piece([]).make_optimizer
            reason = "it is of no module" if unknown else ""
        except Exception as error:  # whatever cannot be pickled
            reason = describe(error)
        if reason:
            self.note(f"trained in this process, as no other can read it ({reason})")
        return not reason

    def note(self, remark: str) -> None:
        """Have a remark said with the next result, once."""
        self.notes.setdefault(remark, False)

    def remarks(self) -> list[str]:
        """Return what is not yet said."""
        for remark in self.keep.remarks if self.keep else ():
            self.note(remark)
        unsaid = [remark for remark, is_said in self.notes.items() if not is_said]
        self.notes |= dict.fromkeys(unsaid, True)
        return unsaid


@dataclass(frozen=True)
class Order:
    """How groups of trainings are trained: each at once, or net by net; on one thread if shared."""

    task: Task
    make_optimizer: MakeOptimizer
    every_epoch: bool
    at_once: bool
    is_shared: bool

    def train(self, group: Sequence[Training], progress: Progress) -> Result:
        """Train a group here."""
        if self.at_once:
            return train_stacked(self.task, group, self.make_optimizer, self.every_epoch, progress)
        (training,) = group
        return train_alone(self.task, training, self.make_optimizer, self.every_epoch, progress)

    def piece(self, trainings: Sequence[Training]) -> Piece:
        """Return what another process trains them by."""
        return Piece(
            pickled(self.task),
            pickle.dumps(self.make_optimizer),
            tuple((t.seed, t.lr, t.settings) for t in trainings),
            self.at_once,
            self.every_epoch,
        )


class Watched:
    """The progress of a thread, for another one to follow."""

    END = 0

    def __init__(self, crew: Crew):
        self.crew = crew
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.n_done = 0

    def __call__(self, items: Iterable[T], total: int, unit: str = "") -> Iterator[T]:
        self.events.put((total, unit))
        try:
            for item in items:
                if self.crew.stopped and unit != "training":  # those that are done are taken
                    raise KeyboardInterrupt
                yield item
                self.n_done += 1
                self.events.put(1)
        finally:
            self.events.put(self.END)

    def end(self, future: object) -> None:
        self.events.put(None)

    def next_event(self) -> Any:
        """Wait for (total, unit), for a 1 after each item, for their END, for None at the end."""
        while True:
            try:
                return self.events.get(timeout=0.5)  # or Windows would not see a Ctrl-C meanwhile
            except queue.Empty:
                pass


def was_given_up(future: Future[Any]) -> bool:
    """Tell whether nobody works on it any more: its workers are gone."""
    return future.cancelled() or isinstance(future.exception(), CancelledError)


def results_of(
    future: Future[bytes], order: Order, groups: Sequence[Sequence[Training]]
) -> list[Result]:
    """Return what a worker made of these groups; if it died of them, that."""
    try:
        return [
            from_record(record, order.task, group)
            for record, group in zip(pickle.loads(future.result()), groups, strict=True)
        ]
    except Exception as error:  # whatever a worker may die of
        lost, why = LostError(describe(error)), f"failed: {describe(error)}"
        return [untrained(order, group[0], lost, why) for group in groups]


def untrained(order: Order, training: Training, error: BaseException, why: str) -> Runs:
    """Return what there is of a training that has not begun."""
    net = training.make_net(order.task)
    unknown = torch.full((1,), math.nan, dtype=torch.float64)
    return Runs(
        order.task,
        [training],
        losses=torch.empty(0, 1, dtype=torch.float64),
        final_losses=unknown,
        held_out_losses=unknown,
        weights={name: tensor.unsqueeze(0) for name, tensor in state_of(net).items()},
        steps_per_epoch=math.ceil(len(training.dataset) / order.task.batch_size),
        lr=training.lr,
        error=error,
        stopped=why,
    )


def is_failure(part: Result) -> bool:
    """Tell whether an optimizer failed, so that one after the other none would come after it."""
    if isinstance(part, str) or is_trained(part):
        return False
    return not isinstance(part.error, LostError | ConnectionError | KeyboardInterrupt)


def is_trained(runs: Runs) -> bool:
    """Tell whether they were trained to their end; what failed may be the loss after that."""
    return not runs.error or len(runs.losses) == runs.task.epochs * runs.steps_per_epoch


def work_of(task: Task, trainings: Sequence[Training]) -> float:
    """Return about how many operations these take, each for itself.

    On another device than the processor it is nothing, as workers would share that.
    """
    dataset = trainings[0].dataset
    if device_of(dataset).type != "cpu":
        return 0.0
    steps = task.epochs * math.ceil(len(dataset) / task.batch_size)
    return len(trainings) * steps * (STEP + way.work_of(task, trainings[0]))


@contextmanager
def open_crew(jobs: int, address: str | None = None, folder: Path | None = None) -> Iterator[Crew]:
    """Yield a crew of so many processes, or of the Dask cluster there; it keeps in the folder."""
    with open_executor(jobs, address) as executor:
        yield Crew(executor, Keep(folder) if folder else None)
