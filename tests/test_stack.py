"""Many nets at once: the numbers of each alone."""

import math
import time
from dataclasses import dataclass, replace

from lab.command_line.specs import parse_optimizer
from lab.outcome import no_progress
from lab.training import machine, stack
from lab.training.adapt import manners
from lab.training.runs import MOVED_NOTHING, Training
from lab.training.train import IN_TURN, train_all, train_in_turn

import pytest
import torch
from conftest import SMALL, assert_like_alone, small_data, small_trainings
from torch.nn.functional import mse_loss, smooth_l1_loss

import optimizers

STACKING = [
    "SGD", "SGD(momentum=0.9, nesterov=True)", "RMSprop(centered=True)", "Adam(amsgrad=True)",
    "AdamW", "Adagrad", "Adadelta(lr=1.0)", "Adamax", "NAdam", "RAdam", "Rprop", "ASGD",
    "optimizers.Adam", "optimizers.SGD(momentum=0.9)", "optimizers.Rprop", "optimizers.NAdam",
]  # fmt: skip


@pytest.mark.parametrize("spec", STACKING)
def test_a_stack_gives_each_seed_the_numbers_it_has_alone(spec):
    make_optimizer = parse_optimizer(spec, lr=0.01)
    runs = train_all(SMALL, small_trainings(), make_optimizer)
    assert runs.stacked
    assert runs.remarks == []
    assert_like_alone(runs, SMALL, small_trainings(), make_optimizer)


@pytest.mark.parametrize("spec", ["SGD(momentum=0.8)", "Adam", "RMSprop", "optimizers.Adagrad"])
def test_so_does_every_learning_rate(spec):
    every = small_trainings(lrs=(0.001, 0.01, 0.1))
    make_optimizer = parse_optimizer(spec)
    runs = train_all(SMALL, every, make_optimizer)
    assert runs.stacked
    assert runs.losses.shape == (24, 12)
    assert runs.lr == 0.001
    assert_like_alone(runs, SMALL, every, make_optimizer)


@pytest.mark.parametrize("lrs", [(None,), (0.001, 0.01)])
def test_what_goes_by_all_elements_at_once_is_trained_in_turn(lrs):
    make_optimizer = parse_optimizer("LBFGS(max_iter=3)", lr=None if lrs[0] else 0.01)
    task = replace(SMALL, epochs=2)
    runs = train_all(task, small_trainings(lrs), make_optimizer)
    assert not runs.stacked
    assert [remark.startswith(IN_TURN) for remark in runs.remarks] == [True]
    assert_like_alone(runs, task, small_trainings(lrs), make_optimizer)


# ---------------------------------------------------------------- nets, losses, ends


class Deep(torch.nn.Module):
    """Another net: more layers, a scalar parameter, a buffer."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(1, 5), torch.nn.Tanh(), torch.nn.Linear(5, 5), torch.nn.Linear(5, 1)
        )
        self.scale = torch.nn.Parameter(torch.tensor(1.5))
        self.register_buffer("shift", torch.rand(1))

    def forward(self, x):
        return self.scale * self.layers(x) + self.shift


class Branching(Deep):
    """Branches on a number, which vmap refuses."""

    def forward(self, x):
        return super().forward(x) if x.sum() < 1e9 else x


class Dropout(Deep):
    def forward(self, x):
        return super().forward(torch.nn.functional.dropout(x, 0.2))


@pytest.mark.parametrize(("net", "stacked"), [(Deep, True), (Branching, False), (Dropout, False)])
@pytest.mark.parametrize("lrs", [(None,), (0.003, 0.01)])
@pytest.mark.parametrize("loss_function", [mse_loss, smooth_l1_loss])
def test_any_net_and_loss_works_and_what_vmap_refuses_is_trained_in_turn(
    net, stacked, lrs, loss_function
):
    task = replace(SMALL, make_net=net, loss=loss_function, epochs=2)
    runs = train_all(task, small_trainings(lrs), torch.optim.Adam)
    assert runs.stacked == stacked
    assert_like_alone(runs, task, small_trainings(lrs), torch.optim.Adam)


def test_data_sets_of_unequal_size_are_trained_in_turn():
    every = [Training(seed, *small_data(seed, samples=40 + seed)) for seed in range(3, 7)]
    runs = train_all(SMALL, every, torch.optim.Adam)
    assert not runs.stacked
    assert_like_alone(runs, SMALL, every, torch.optim.Adam)


def test_a_net_that_diverges_leaves_the_others_alone_and_ends():
    every = small_trainings(lrs=(0.01, 0.02, 1e12))
    make_optimizer = parse_optimizer("SGD(momentum=0.8)")
    runs = train_all(SMALL, every, make_optimizer)
    assert runs.stacked
    assert runs.final_losses[8:].isinf().all()
    for k in range(8, 12):
        alone = train_in_turn(SMALL, [every[k]], make_optimizer, no_progress)
        assert len(runs.history(k)) == len(alone.history(0))
    assert_like_alone(runs, SMALL, every[:8], make_optimizer)
    assert runs.note.startswith("4 of 12 diverged, from step ")


def test_nothing_is_finite_after_a_loss_that_is_not():
    losses = torch.tensor([[1.0, 1], [math.inf, 2], [3, 3]], dtype=torch.float64)
    cut, diverged = stack.cut_off(losses)
    assert cut.nan_to_num(-1).tolist() == [[1, 1], [torch.finfo(torch.float64).max, 2], [-1, 3]]
    assert diverged.tolist() == [True, False]
    losses = torch.tensor([[math.inf], [math.inf], [-math.inf], [2.0]])
    assert stack.cut_off(losses)[0].isnan().flatten().tolist() == [
        False, True, True, True
    ]  # fmt: skip


def test_the_seconds_are_those_of_the_training():
    start = time.perf_counter()
    runs = train_all(SMALL, small_trainings(), torch.optim.SGD)
    assert 0 < runs.seconds <= time.perf_counter() - start


class StopsAt(torch.optim.SGD):
    """Ctrl-C, or another error, at step 9."""

    error = KeyboardInterrupt

    def step(self, closure=None):
        self.count = getattr(self, "count", 0) + 1
        if self.count == 9:
            raise self.error
        return super().step(closure)


def test_an_interrupted_stack_keeps_the_steps_it_has_taken():
    whole = train_all(SMALL, small_trainings(), torch.optim.SGD)
    runs = train_all(SMALL, small_trainings(), StopsAt)
    assert runs.interrupted
    assert torch.equal(runs.losses, whole.losses[:8])
    assert runs.note == "interrupted at step 9"
    assert runs.seconds > 0


def test_a_stack_that_is_interrupted_at_once_is_not_blamed_for_moving_nothing(monkeypatch):
    class StopsAtOnce(torch.optim.SGD):
        def step(self, closure=None):
            raise KeyboardInterrupt

    monkeypatch.setitem(manners, StopsAtOnce, "closure")  # or the trial of it would stop at once
    runs = train_all(SMALL, small_trainings(), StopsAtOnce)
    assert runs.interrupted
    assert runs.remarks == []


def test_an_optimizer_that_fails_in_a_stack_is_a_result():
    class Fails(StopsAt):
        error = ZeroDivisionError

    runs = train_all(SMALL, small_trainings(), Fails)
    assert isinstance(runs.error, ZeroDivisionError)
    assert runs.note == "failed at step 9 of seed 3: ZeroDivisionError:"
    assert runs.remarks == []
    assert len(runs.history(0)) == 8


def test_a_stack_that_nothing_moves_says_so():
    class Still(torch.optim.SGD):
        def step(self, closure=None):
            return closure()

    assert train_all(SMALL, small_trainings(), Still).remarks == [MOVED_NOTHING]


def test_a_single_training_is_the_plain_loop():
    runs = train_all(SMALL, small_trainings()[:1], optimizers.Adam)
    alone = train_in_turn(SMALL, small_trainings()[:1], optimizers.Adam, no_progress)
    assert runs.history(0) == alone.history(0)
    assert not runs.stacked
    assert runs.remarks == []


# ---------------------------------------------------------------- threads


def test_a_stack_trains_with_the_threads_that_suit_it(two_threads, monkeypatch):
    seen = []

    class Looks(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(torch.get_num_threads())
            return super().step(closure)

    monkeypatch.setitem(manners, Looks, "closure")  # a trial would be seen, too
    train_all(SMALL, small_trainings(), Looks)
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("n_seeds", [4, 300])
def test_the_numbers_do_not_depend_on_the_number_of_threads(n_seeds, two_threads, monkeypatch):
    monkeypatch.setattr(machine, "WORTH_SHARING", 0)
    task = replace(SMALL, epochs=2)
    every = small_trainings((0.001, 0.01), range(n_seeds))
    runs = []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        runs.append(train_all(task, every, torch.optim.Adam))
    assert runs[0].stacked
    assert torch.equal(runs[0].losses, runs[1].losses)
    assert torch.equal(runs[0].final_losses, runs[1].final_losses)


def test_what_makes_the_net_may_be_anything_that_can_be_called():
    @dataclass  # and so not hashable
    class MakeNet:
        def __call__(self):
            return SMALL.make_net()

    runs = train_all(replace(SMALL, make_net=MakeNet()), small_trainings(), torch.optim.SGD)
    assert runs.stacked
    assert torch.equal(runs.losses, train_all(SMALL, small_trainings(), torch.optim.SGD).losses)
