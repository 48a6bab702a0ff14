"""A crew has the numbers of this process, whoever trains and in whichever order."""

import pickle
import threading
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import fields, replace

from lab.command_line.specs import parse_optimizer, parse_optimizers
from lab.outcome import no_progress
from lab.training import crew as crews
from lab.training import pieces
from lab.training.crew import Crew, Job, Watched, work_of
from lab.training.pieces import run_piece
from lab.training.runs import trainings_of
from lab.training.sweeps import sweep
from lab.training.train import train_all, train_in_turn

import pytest
import torch
from conftest import FAILS, PATIENCE, SMALL, small_data
from torch import nn
from torch.nn.functional import mse_loss

from tasks import Task


class Workers(Executor):
    """Has each piece done in this process once all are asked for, or so many, the last one first.

    What goes in and out is pickled.
    """

    def __init__(self, number=1, at_once=1):
        self.number, self.at_once = number, at_once
        self.waiting, self.pieces = [], []
        self.ended = False

    def submit(self, function, piece):
        future = Future()
        self.pieces.append(piece)
        self.waiting.append((future, pickle.dumps((function, piece))))
        if len(self.waiting) >= self.at_once:
            self.work()
        return future

    def work(self):
        while self.waiting:
            future, call = self.waiting.pop()
            function, piece = pickle.loads(call)
            if future.set_running_or_notify_cancel():
                future.set_result(pickle.loads(pickle.dumps(function(piece))))

    def shutdown(self, wait=True):
        self.ended = True


class Dropout(nn.Sequential):
    """A net that no stack can train."""

    def __init__(self):
        super().__init__(nn.Linear(1, 6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 1))


NOISY = Task(small_data, Dropout, mse_loss, epochs=2, batch_size=20)
SGD, ADAM = parse_optimizer("SGD(lr=0.1)"), parse_optimizer("Adam")


@pytest.fixture
def shared(monkeypatch):
    """Any work is worth sharing."""
    monkeypatch.setattr(crews, "WORTH_SHARING", 0)


@pytest.fixture
def in_turn(monkeypatch):
    """Nets are trained one after the other, and each is a piece."""
    monkeypatch.setattr("lab.training.train.is_stack_quicker", lambda *_: False)
    monkeypatch.setattr(crews, "PIECE", 0)


def jobs_of(task, seeds, **optimizers):
    trainings = trainings_of(task, seeds)
    return {label: Job(task, trainings, make) for label, make in optimizers.items()}


def assert_same(one, other):
    """Assert that runs have the same numbers, bit for bit."""
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
        elif field.name == "weights":
            assert a.keys() == b.keys()
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
        elif field.name not in ("task", "trainings", "nets", "seconds", "error"):
            assert a == b
    assert [(t.seed, t.lr) for t in one.trainings] == [(t.seed, t.lr) for t in other.trainings]


@pytest.mark.parametrize(("task", "n_seeds"), [(SMALL, 6), (SMALL, 2), (NOISY, 4)])
def test_workers_give_the_numbers_of_this_process(shared, task, n_seeds):
    jobs = jobs_of(task, range(n_seeds), SGD=SGD, Adam=ADAM)
    here = dict(Crew().each(train_all, jobs))
    workers = Workers(number=2)
    there = dict(Crew(workers).each(train_all, jobs))
    assert list(there) == list(here) == ["SGD", "Adam"]
    for label, runs in here.items():
        assert_same(there[label], runs)
        assert there[label].seconds > 0
        alone = train_all(task, jobs[label].trainings, jobs[label].make_optimizer)
        assert_same(runs, alone)
    assert {piece.at_once for piece in workers.pieces} >= {n_seeds < 4 or (task is SMALL and True)}


def test_the_order_in_which_pieces_come_back_changes_nothing(shared, in_turn):
    jobs = jobs_of(SMALL, range(3), SGD=SGD)
    workers = Workers(at_once=3)  # the last one first
    ((_, runs),) = Crew(workers).each(train_all, jobs)
    assert [piece.starts for piece in workers.pieces] == [((k, None, {}),) for k in range(3)]
    assert_same(runs, train_in_turn(SMALL, jobs["SGD"].trainings, SGD, no_progress))


def test_small_trainings_that_take_their_turn_go_together(shared, in_turn, monkeypatch):
    monkeypatch.setattr(crews, "PIECE", 1e9)
    workers = Workers()
    list(Crew(workers).each(train_all, jobs_of(SMALL, range(3), SGD=SGD)))
    assert [piece.starts for piece in workers.pieces] == [
        ((0, None, {}), (1, None, {}), (2, None, {}))
    ]


def test_small_work_is_done_here():
    workers = Workers()
    jobs = jobs_of(SMALL, range(6), SGD=SGD, Adam=ADAM)
    assert sum(work_of(*job[:2]) for job in jobs.values()) < crews.WORTH_SHARING
    assert len(dict(Crew(workers).each(train_all, jobs))) == 2
    assert not workers.pieces


def test_work_is_counted_by_steps_and_by_what_each_costs():
    class Wide(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(1, 1000, bias=False), nn.Linear(1000, 1, bias=False))

    trainings = trainings_of(SMALL, [1, 2])
    task = replace(SMALL, make_net=Wide, epochs=3, batch_size=30)  # 4 mini-batches of 100 samples
    # There 2 operations a weight and sample, and back twice as many but for the gradient of x.
    products = 2 * 30 * (1000 + 1000 + 1000 + 1000 + 1000)
    assert work_of(task, trainings) == 2 * 3 * 4 * (crews.STEP + products + 100 * 2000)


def test_another_device_is_shared_by_no_processes():
    (training,) = trainings_of(SMALL, [1])
    x = torch.empty(100, 1, device="meta")
    elsewhere = replace(training, dataset=torch.utils.data.TensorDataset(x, x))
    assert work_of(SMALL, [elsewhere]) == 0


def test_shared_work_has_one_thread_with_workers_and_without(shared, in_turn, two_threads):
    seen = []

    class Looks(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(torch.get_num_threads())
            return super().step(closure)

    list(Crew().each(train_all, jobs_of(SMALL, range(2), Looks=Looks, SGD=SGD)))
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2
    workers = Workers()
    list(Crew(workers).each(train_all, jobs_of(SMALL, range(2), SGD=SGD, Adam=ADAM)))
    seen.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "lab.training.pieces.train_alone", lambda *_: seen.append(torch.get_num_threads())
        )
        patch.setattr(pieces, "as_record", lambda runs: {})
        assert isinstance(run_piece(workers.pieces[0]), bytes)  # no shared memory
    assert seen == [1]
    assert torch.get_num_threads() == 2


def test_a_sweep_hands_out_what_its_grid_grows_by(shared):
    trainings = trainings_of(SMALL, [1, 2], [1e-4, 1e-3])
    jobs = {label: Job(SMALL, trainings, parse_optimizer(label)) for label in ("SGD", "Adam")}
    workers = Workers(number=2)
    here, there = dict(Crew().each(sweep, jobs)), dict(Crew(workers).each(sweep, jobs))
    assert len(here["SGD"].trainings) > len(trainings)
    for label, runs in here.items():
        assert_same(there[label], runs)
    assert sum(len(piece.starts) for piece in workers.pieces) == sum(
        len(runs.trainings) for runs in here.values()
    )


# ---------------------------------------------------------------- what goes wrong


def test_an_optimizer_that_fails_is_the_same_result(shared, in_turn, homework):
    homework(FAILS.replace("== 3", "== 3 and self.param_groups[0]['lr'] == 0.2"))
    fails = parse_optimizer("homework.Fails")
    trainings = [
        replace(training, lr=lr)
        for training, lr in zip(trainings_of(SMALL, range(3)), (0.1, 0.2, 0.3), strict=True)
    ]
    alone = train_in_turn(SMALL, trainings, fails, no_progress)
    assert alone.stopped.startswith("failed at step 3 of seed 1: RuntimeError: boom")
    for workers in (None, Workers(at_once=3), Workers()):
        ((_, runs),) = Crew(workers).each(train_all, {"Fails": Job(SMALL, trainings, fails)})
        assert_same(runs, alone)
        assert isinstance(runs.error, RuntimeError)


class Deadly(Workers):
    """Its workers die of the second seed."""

    def work(self):
        ((future, call),) = self.waiting
        if pickle.loads(call)[1].starts[0][0] == 1:
            self.waiting.clear()
            future.set_exception(RuntimeError("its process was killed 3 times"))
        else:
            super().work()


def test_a_worker_that_dies_costs_its_own_piece(shared, in_turn):
    jobs = jobs_of(SMALL, range(3), SGD=SGD)
    ((_, runs),) = Crew(Deadly()).each(train_all, jobs)
    assert [training.seed for training in runs.trainings] == [0, 2]
    assert runs.note == "failed: RuntimeError: its process was killed 3 times"
    assert runs.error
    assert not runs.interrupted
    others = [job for job in jobs["SGD"].trainings if job.seed != 1]
    assert torch.equal(runs.losses, train_in_turn(SMALL, others, SGD, no_progress).losses)


def test_where_nothing_is_left_there_is_a_row_without_numbers(shared):
    jobs = jobs_of(SMALL, [1], SGD=SGD, Adam=ADAM)
    rows = dict(Crew(Deadly()).each(train_all, jobs))
    for runs in rows.values():
        assert runs.note == "failed: RuntimeError: its process was killed 3 times"
        assert runs.history(0) == []
        assert runs.final_losses.isnan().all()
        assert runs.predict(torch.zeros(2, 1), 0).shape == (2, 1)


class Gone(Workers):
    """Its workers are lost after the first piece."""

    how = "cancelled"

    def work(self):
        if len(self.pieces) > 1:
            ((future, _),) = self.waiting
            self.waiting.clear()
            if self.how == "cancelled":
                future.cancel()
                future.set_running_or_notify_cancel()
            else:
                future.set_exception(CancelledError())
        else:
            super().work()


@pytest.mark.parametrize("how", ["cancelled", "ended"])
def test_of_workers_that_are_lost_the_finished_results_are_taken_first(shared, how, monkeypatch):
    monkeypatch.setattr(Gone, "how", how)
    comes = Crew(Gone()).each(train_all, jobs_of(SMALL, [1], SGD=SGD, Adam=ADAM))
    label, runs = next(comes)  # the one whose piece came first
    assert label in ("SGD", "Adam")
    assert not runs.error
    with pytest.raises(ConnectionError, match="the workers are gone"):
        list(comes)


def test_ctrl_c_hands_on_what_else_is_done_and_ends_the_workers(shared, in_turn):
    workers = Workers(number=2)
    crew = Crew(workers)
    ended = threading.Event()

    def train(*job, progress, crew):
        runs = train_all(*job, progress=progress, crew=crew)
        if job[2] is ADAM:
            ended.set()
        return runs

    comes = crew.each(train, jobs_of(SMALL, range(2), SGD=SGD, Adam=ADAM))
    assert next(comes)[0] == "SGD"
    with crew.waiting():
        assert ended.wait(PATIENCE)
    label, runs = comes.throw(KeyboardInterrupt)
    assert label == "Adam"
    assert not runs.error
    with pytest.raises(KeyboardInterrupt):
        next(comes)
    assert workers.ended


def test_ctrl_c_keeps_the_trainings_that_are_done(shared, in_turn):

    def interrupted(items, total, unit):
        for number, item in enumerate(items):
            if number == 1:
                raise KeyboardInterrupt
            yield item

    comes = Crew(Workers()).each(
        train_all, jobs_of(SMALL, range(3), SGD=SGD), lambda name: interrupted
    )
    _, runs = next(comes)
    assert runs.interrupted
    assert runs.note == "interrupted after 2 of 3"
    assert len({training.seed for training in runs.trainings}) == 2
    with pytest.raises(KeyboardInterrupt):
        next(comes)


def test_what_no_other_process_can_read_is_trained_here(shared):
    workers = Workers(number=2)
    jobs = jobs_of(SMALL, range(2), mine=lambda params: torch.optim.SGD(params, 0.1), SGD=SGD)
    rows = dict(Crew(workers).each(train_all, jobs))
    (remark,) = rows["mine"].remarks
    assert remark.startswith("trained in this process, as no other can read it (")
    assert rows["SGD"].remarks == []
    assert torch.equal(rows["mine"].losses, rows["SGD"].losses)
    assert len(workers.pieces) == 1


def test_a_task_goes_by_its_recipe_where_it_has_one(shared, monkeypatch):
    task = replace(SMALL, loss=lambda outputs, y: mse_loss(outputs, y))
    monkeypatch.setattr(pieces, "recipes", [])
    jobs = jobs_of(task, range(2), SGD=SGD, Adam=ADAM)
    workers = Workers(number=2)
    list(Crew(workers).each(train_all, jobs))
    assert not workers.pieces
    pieces.recipes.append((task, make_small))
    rows = dict(Crew(workers).each(train_all, jobs))
    assert len(workers.pieces) == 2
    assert rows["SGD"].task is task


def make_small():
    return SMALL


def test_progress_is_followed_from_another_thread():
    crew = Crew()
    watch = Watched(crew)
    assert list(watch("abc", 3)) == ["a", "b", "c"]
    watch.end(None)
    assert [watch.next_event() for _ in range(6)] == [(3, ""), 1, 1, 1, Watched.END, None]
    assert watch.n_done == 3
    crew.stop(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        next(iter(watch("abc", 3)))


def test_progress_counts_trainings(shared, in_turn):
    counts = []

    def count(items, total, unit):
        items = list(items)
        counts.append((len(items), total))
        assert unit == "training"
        return items

    jobs = jobs_of(SMALL, range(3), SGD=SGD, Adam=ADAM)
    list(Crew(Workers(number=2)).each(train_all, jobs, lambda name: count))
    jobs = jobs_of(SMALL, range(5), SGD=SGD, Adam=ADAM)
    list(Crew(Workers(number=2)).each(train_all, jobs, lambda name: count))
    assert counts == [(3, 3), (3, 3), (5, 5), (5, 5)]


def test_optimizers_go_by_name(homework):
    homework(FAILS)
    spec = parse_optimizers(["mine=homework.Fails(lr=0.5) + StepLR(step_size=2)", "RMSprop"])
    assert pickle.loads(pickle.dumps(spec)) == spec
