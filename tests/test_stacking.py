"""Many nets at once: the numbers of each alone, or else not at once."""

import inspect
import math
import os
import shutil
import time
from dataclasses import dataclass, replace

from lab import machine, stacking
from lab.report import NOT_COMPILED, Interrupted
from lab.specs import parse_optimizer
from lab.stacking import IN_TURN, is_worth_compiling, train_all
from lab.trainings import MOVED_NOTHING, Training, train_in_turn, trainings_of, without_progress

import pytest
import torch
from conftest import SMALL, small_data
from torch.nn.functional import mse_loss, smooth_l1_loss

import optimizers
import training as training_module
from tasks import TASKS

SEEDS = range(3, 7)


def trainings(lrs=(None,), seeds=SEEDS):
    return trainings_of(SMALL, seeds, lrs)


def assert_like_alone(runs, task, all_trainings, make_optimizer):
    """Assert that each of the runs has the numbers that it has alone, to rounding."""
    close = {"rtol": 2e-3, "atol": 1e-5}
    for k, training in enumerate(all_trainings):
        alone = train_in_turn(task, [training], make_optimizer, without_progress)
        torch.testing.assert_close(
            torch.tensor(runs.history(k)), torch.tensor(alone.history(0)), **close
        )
        torch.testing.assert_close(runs.final_losses[k], alone.final_losses[0], **close)
        torch.testing.assert_close(runs.held_out_losses[k], alone.held_out_losses[0], **close)
        for name, value in alone.weights.items():
            torch.testing.assert_close(runs.weights[name][k], value[0], **close)
    assert runs.steps_per_epoch == alone.steps_per_epoch


STACKING = [
    "SGD", "SGD(momentum=0.9, nesterov=True)", "RMSprop(centered=True)", "Adam(amsgrad=True)",
    "AdamW", "Adagrad", "Adadelta(lr=1.0)", "Adamax", "NAdam", "RAdam", "Rprop", "ASGD",
    "optimizers.Adam", "optimizers.SGD(momentum=0.9)", "optimizers.Rprop", "optimizers.NAdam",
]  # fmt: skip


@pytest.mark.parametrize("spec", STACKING)
def test_a_stack_gives_each_seed_the_numbers_it_has_alone(spec):
    make_optimizer = parse_optimizer(spec, lr=0.01)
    runs = train_all(SMALL, trainings(), make_optimizer)
    assert runs.stacked
    assert runs.remarks == []
    assert_like_alone(runs, SMALL, trainings(), make_optimizer)


@pytest.mark.parametrize("spec", ["SGD(momentum=0.8)", "Adam", "RMSprop", "optimizers.Adagrad"])
def test_so_does_every_learning_rate(spec):
    every = trainings(lrs=(0.001, 0.01, 0.1))
    make_optimizer = parse_optimizer(spec)
    runs = train_all(SMALL, every, make_optimizer)
    assert runs.stacked
    assert runs.losses.shape == (24, 12)
    assert runs.lr == 0.001
    assert_like_alone(runs, SMALL, every, make_optimizer)


@pytest.mark.parametrize("spec", ["LBFGS(max_iter=3)", "Adafactor"])
@pytest.mark.parametrize("lrs", [(None,), (0.001, 0.01)])
def test_what_does_not_treat_elements_alone_is_trained_in_turn(spec, lrs):
    make_optimizer = parse_optimizer(spec, lr=None if lrs[0] else 0.01)
    task = replace(SMALL, epochs=2)
    runs = train_all(task, trainings(lrs), make_optimizer)
    assert not runs.stacked
    assert [remark.startswith(IN_TURN) for remark in runs.remarks] == [True]
    assert_like_alone(runs, task, trainings(lrs), make_optimizer)


# ---------------------------------------------------------------- adversaries


class Adversary(torch.optim.SGD):
    """SGD that in some way makes more of a step than each element's own gradient."""

    def __init__(self, params, lr=0.02):
        super().__init__(params, lr=lr)
        self.count = 0

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        self.count += 1
        self.change()
        super().step()
        return loss

    def params(self):
        return [param for group in self.param_groups for param in group["params"]]

    def shrink(self, factor=0.9):
        for param in self.params():
            param.grad /= factor + param.grad.norm()


class FromStepFour(Adversary):
    def change(self):
        if self.count >= 4:
            self.shrink()


class FromStepHundred(Adversary):
    def change(self):
        if self.count >= 100:
            self.shrink()


class EveryFifthStep(Adversary):
    def change(self):
        if self.count % 5 == 0:
            self.shrink()


class AboveANorm(Adversary):
    """Clips what is above a norm that only the highest rate reaches."""

    def change(self):
        torch.nn.utils.clip_grad_norm_(self.params(), 20.0)


class AcrossGroups(Adversary):
    def change(self):
        norm = sum(param.grad.norm() for param in self.params())
        for param in self.params():
            param.grad *= 1 + 0.01 * norm


class ByShape(Adversary):
    def change(self):
        for param in self.params():
            if param.ndim > 1:
                param.grad *= 1.01


class ByNumberOfParameters(Adversary):
    def change(self):
        for param in self.params():
            param.grad *= 1 + 1 / param.numel()


class DistanceFromTheStart(Adversary):
    def change(self):
        if not hasattr(self, "start"):
            self.start = [param.clone() for param in self.params()]
        for param, start in zip(self.params(), self.start, strict=True):
            param.grad *= 1 + 0.01 * (param - start).norm()


class OutsideItsState(Adversary):
    """Keeps an average of all gradients where no state_dict sees it."""

    def change(self):
        for param in self.params():
            self.mean = 0.9 * getattr(self, "mean", 0) + 0.1 * param.grad.mean()
            param.grad += self.mean


class RandomDraws(Adversary):
    def change(self):
        for param in self.params():
            param.grad += 0.1 * torch.randn_like(param)


class NewData(Adversary):
    """Puts new tensors into the parameters, as `param.data = ...` does."""

    def change(self):
        for param in self.params():
            param.data = param.data * 0.999


class TwoCalls(Adversary):
    """Evaluates the loss a second time further along, as sharpness-aware methods do."""

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        moves = [0.05 * param.grad / param.grad.norm() for param in self.params()]
        for param, move in zip(self.params(), moves, strict=True):
            param += move
        with torch.enable_grad():
            closure()
        for param, move in zip(self.params(), moves, strict=True):
            param -= move
        torch.optim.SGD.step(self)
        return loss


class MovesBeforeItLooks(Adversary):
    @torch.no_grad()
    def step(self, closure=None):
        for param in self.params():
            param *= 1 - 1e-3 * param.norm()
        with torch.enable_grad():
            loss = closure()
        for param in self.params():
            param /= 1 - 1e-3 * param.norm()
        return loss


class AnotherLoss(Adversary):
    """Reports twice the loss."""

    def step(self, closure=None):
        return 2 * super().step(closure)

    def change(self):
        pass


ADVERSARIES = [
    FromStepFour, FromStepHundred, EveryFifthStep, AboveANorm, AcrossGroups, ByShape,
    ByNumberOfParameters, DistanceFromTheStart, OutsideItsState, RandomDraws, NewData, TwoCalls,
    MovesBeforeItLooks, AnotherLoss,
]  # fmt: skip


RATES = 0.01, 0.02, 0.7


@pytest.mark.parametrize(
    ("adversary", "lrs"),
    [(each, RATES) for each in ADVERSARIES]
    + [(each, (None,)) for each in ADVERSARIES if each is not AboveANorm],
)
def test_an_optimizer_that_couples_elements_is_found_out(adversary, lrs):
    task = replace(SMALL, epochs=40)
    every = trainings(lrs, seeds=(3, 4))
    runs = train_all(task, every, adversary)
    assert not runs.stacked
    alone = train_in_turn(task, every[:1], adversary, without_progress)
    assert runs.history(0) == alone.history(0)


def test_element_wise_optimizers_stay_stacked_over_a_thousand_epochs():
    task = replace(SMALL, epochs=1000, batch_size=50)
    for spec in ("RMSprop(alpha=0.9)", "Adam(betas=(0.9, 0.99))"):
        runs = train_all(task, trainings(seeds=(3, 4)), parse_optimizer(spec, lr=0.01))
        assert runs.stacked


def test_a_training_loop_with_another_loss_is_found_out(monkeypatch):
    def train(net, optimizer, loader, loss_function, epochs):
        return training_module.train(net, optimizer, loader, smooth_l1_loss, epochs)

    monkeypatch.setattr(stacking, "train", train)
    assert not train_all(SMALL, trainings(), torch.optim.Adam).stacked


def test_a_final_loss_that_is_not_the_nets_own_is_found_out(monkeypatch):
    monkeypatch.setattr(stacking, "evaluate", lambda net, dataset, loss: 1.01)
    assert not train_all(SMALL, trainings(), torch.optim.Adam).stacked


@pytest.mark.parametrize("wrong", ["weights", "losses", "grads"])
def test_a_stack_that_computes_something_else_is_found_out(wrong, monkeypatch):
    backward = stacking.Stack.backward

    def changed(stack, samples):
        losses, grads = backward(stack, samples)
        if wrong == "weights":
            with torch.no_grad():
                stack.matrix *= 1.0001
        if wrong == "losses":
            losses = losses * 1.001
        if wrong == "grads":
            grads *= 1.01
        return losses, grads

    monkeypatch.setattr(stacking.Stack, "backward", changed)
    assert not train_all(SMALL, trainings(), torch.optim.Adam).stacked


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
    runs = train_all(task, trainings(lrs), torch.optim.Adam)
    assert runs.stacked == stacked
    assert_like_alone(runs, task, trainings(lrs), torch.optim.Adam)


def test_data_sets_of_unequal_size_are_trained_in_turn():
    every = [Training(seed, *small_data(seed, samples=40 + seed)) for seed in SEEDS]
    runs = train_all(SMALL, every, torch.optim.Adam)
    assert not runs.stacked
    assert_like_alone(runs, SMALL, every, torch.optim.Adam)


def test_a_net_that_diverges_leaves_the_others_alone_and_ends():
    every = trainings(lrs=(0.01, 0.02, 1e12))
    make_optimizer = parse_optimizer("SGD(momentum=0.8)")
    runs = train_all(SMALL, every, make_optimizer)
    assert runs.stacked
    assert runs.final_losses[8:].isinf().all()
    for k in range(8, 12):
        alone = train_in_turn(SMALL, [every[k]], make_optimizer, without_progress)
        assert len(runs.history(k)) == len(alone.history(0))
    assert_like_alone(runs, SMALL, every[:8], make_optimizer)
    assert runs.note().startswith("4 of 12 diverged, from step ")


def test_nothing_is_finite_after_a_loss_that_is_not():
    losses = torch.tensor([[1.0, 1], [math.inf, 2], [3, 3]], dtype=torch.float64)
    cut, diverged = stacking.cut_off(losses)
    assert cut.nan_to_num(-1).tolist() == [[1, 1], [torch.finfo(torch.float64).max, 2], [-1, 3]]
    assert diverged.tolist() == [True, False]
    losses = torch.tensor([[math.inf], [math.inf], [-math.inf], [2.0]])
    assert stacking.cut_off(losses)[0].isnan().flatten().tolist() == [
        False, True, True, True
    ]  # fmt: skip


def test_two_shadows_go_along_for_an_epoch_and_then_one():
    steps = []

    class Counts(torch.optim.SGD):
        def step(self, closure=None):
            steps.append(self)
            return super().step(closure)

    runs = train_all(SMALL, trainings((0.01, 0.02, 0.03)), Counts)
    assert runs.stacked
    assert len(steps) == 4 * 3 + 5 * 4 * 2  # with the stack's own, in each of 6 epochs of 4 steps
    assert sorted(map(steps.count, set(steps))) == [4, 24, 24]


def test_where_the_middle_rate_diverges_another_shadow_goes_on():
    every = trainings((0.01, 1e25, 0.02))
    runs = train_all(SMALL, every, torch.optim.SGD)
    assert runs.stacked
    assert runs.final_losses[4:8].isinf().all()
    assert_like_alone(runs, SMALL, every[:4], torch.optim.SGD)


def test_the_loop_is_run_once_an_epoch_to_check(monkeypatch):
    checked = []

    def train(net, optimizer, loader, loss_function, epochs):
        checked.append(loader)
        return training_module.train(net, optimizer, loader, loss_function, epochs)

    monkeypatch.setattr(stacking, "train", train)
    assert train_all(SMALL, trainings(), torch.optim.SGD).stacked
    assert len(checked) == 2 + 5  # by both shadows in the first epoch, then by one
    assert {len(x) for ((x, _),) in checked} == {32, 4}  # the smaller last mini-batch is one


def test_the_seconds_are_those_of_the_training():
    start = time.perf_counter()
    runs = train_all(SMALL, trainings(), torch.optim.SGD)
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
    whole = train_all(SMALL, trainings(), torch.optim.SGD)
    with pytest.raises(Interrupted) as stop:
        train_all(SMALL, trainings(), StopsAt)
    runs = stop.value.run
    assert torch.equal(runs.losses, whole.losses[:8])
    assert runs.note() == "interrupted at step 9"
    assert runs.seconds > 0


def test_a_stack_that_is_interrupted_at_once_is_not_blamed_for_moving_nothing():
    class StopsAtOnce(torch.optim.SGD):
        def step(self, closure=None):
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stop:
        train_all(SMALL, trainings(), StopsAtOnce)
    assert stop.value.run.remarks == []


def test_an_optimizer_that_fails_in_a_stack_is_a_result():
    class Fails(StopsAt):
        error = ZeroDivisionError

    runs = train_all(SMALL, trainings(), Fails)
    assert isinstance(runs.error, ZeroDivisionError)
    assert runs.note() == "failed at step 9 of seed 3: ZeroDivisionError:"
    assert runs.remarks == []
    assert len(runs.history(0)) == 8


def test_a_stack_that_nothing_moves_says_so():
    class Still(torch.optim.SGD):
        def step(self, closure=None):
            return closure()

    assert train_all(SMALL, trainings(), Still).remarks == [MOVED_NOTHING]


def test_a_single_training_is_the_plain_loop():
    runs = train_all(SMALL, trainings()[:1], optimizers.Adam)
    alone = train_in_turn(SMALL, trainings()[:1], optimizers.Adam, without_progress)
    assert runs.history(0) == alone.history(0)
    assert not runs.stacked
    assert runs.remarks == []


# ---------------------------------------------------------------- threads


def test_a_stack_trains_with_the_threads_that_suit_it(two_threads):
    seen = []

    class Looks(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(torch.get_num_threads())
            return super().step(closure)

    train_all(SMALL, trainings(), Looks)
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("n_seeds", [4, 300])
def test_the_numbers_do_not_depend_on_the_number_of_threads(n_seeds, two_threads, monkeypatch):
    monkeypatch.setattr(machine, "WORTH_SHARING", 0)
    task = replace(SMALL, epochs=2)
    every = trainings((0.001, 0.01), range(n_seeds))
    runs = []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        runs.append(train_all(task, every, torch.optim.Adam))
    assert runs[0].stacked
    assert torch.equal(runs[0].losses, runs[1].losses)
    assert torch.equal(runs[0].final_losses, runs[1].final_losses)


def test_the_first_nets_are_made_once_for_all_optimizers():
    made = []

    @dataclass  # and so not hashable
    class MakeNet:
        def __call__(self):
            made.append(SMALL.make_net())
            return made[-1]

    task, every = replace(SMALL, make_net=MakeNet()), trainings((0.01, 0.1))
    runs = [train_all(task, every, torch.optim.SGD) for _ in range(2)]
    assert runs[0].stacked
    assert torch.equal(runs[0].losses, runs[1].losses)
    first_weights = {id(net): net.state_dict() for net in made}
    assert len(first_weights) == len(SEEDS) + 2 * 4  # a stack's own, two of the proof, one counted
    other = replace(SMALL, make_net=Deep)  # the same trainings, of other nets
    assert_like_alone(train_all(other, every, torch.optim.SGD), other, every, torch.optim.SGD)


# ---------------------------------------------------------------- compiled


@pytest.fixture
def compilations(monkeypatch):
    """Let torch.compile leave everything as it is; a list of what it was asked for."""
    asked = []

    def leave(function, **options):
        asked.append(function)
        return function

    monkeypatch.setattr(torch, "compile", leave)
    stacking.compiled_pass.cache_clear()
    yield asked
    stacking.compiled_pass.cache_clear()


needs_a_compiler = pytest.mark.skipif(
    not shutil.which(os.environ.get("CXX", "cl" if os.name == "nt" else "g++")),
    reason="there is no C++ compiler",
)
needs_isolation = pytest.mark.skipif(
    "isolate_recompiles" not in inspect.signature(torch.compile).parameters,
    reason="before torch 2.13, torch.compile cannot keep nets apart, and nothing is compiled",
)


@needs_a_compiler
@needs_isolation
@pytest.mark.filterwarnings("ignore")  # torch's own
def test_compiled_stacks_give_each_net_the_numbers_it_has_alone():
    counted = torch._dynamo.utils.counters["stats"]
    before = counted["unique_graphs"]
    for spec, seeds in (("SGD(momentum=0.9)", SEEDS), ("Adam", range(9)), ("RMSprop", (3, 4))):
        every, make_optimizer = trainings((0.01, 0.1), seeds), parse_optimizer(spec)
        runs = train_all(SMALL, every, make_optimizer, compiled=True)
        assert runs.stacked
        assert runs.remarks == []
        assert_like_alone(runs, SMALL, every, make_optimizer)
    assert counted["unique_graphs"] == before + 1  # for all optimizers and numbers of nets


@needs_a_compiler
@needs_isolation
@pytest.mark.filterwarnings("ignore")  # torch's own
def test_compiled_numbers_do_not_depend_on_the_number_of_threads(two_threads, monkeypatch):
    monkeypatch.setattr(machine, "WORTH_SHARING", 0)
    task = replace(TASKS["logistic"], epochs=1)  # of two outputs: torch would share their sums
    every = trainings_of(task, range(12), (0.01, 0.1, 1.0))
    runs = []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        runs.append(train_all(task, every, torch.optim.SGD, compiled=True))
    assert runs[0].remarks == runs[1].remarks == []
    assert torch.equal(runs[0].losses, runs[1].losses)
    assert torch.equal(runs[0].final_losses, runs[1].final_losses)


class Normed(torch.nn.Sequential):
    """A net with buffers, which its training moves."""

    def __init__(self):
        super().__init__(
            torch.nn.Linear(1, 5, bias=False), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 1)
        )


@pytest.mark.parametrize("make_net", [SMALL.make_net, Normed, Deep])
@pytest.mark.parametrize("batch_size", [32, 50, 1000])
def test_what_is_compiled_is_the_same_pass(make_net, batch_size, compilations):
    task = replace(SMALL, make_net=make_net, batch_size=batch_size)
    every = trainings((0.01, 0.1))
    plain = train_all(task, every, torch.optim.Adam)
    assert compilations == []
    runs = train_all(task, every, torch.optim.Adam, compiled=True)
    assert len(compilations) == 1
    assert runs.stacked
    assert runs.remarks == []
    close = {"rtol": 2e-3, "atol": 1e-5}
    torch.testing.assert_close(runs.losses, plain.losses, **close)
    torch.testing.assert_close(runs.held_out_losses, plain.held_out_losses, **close)


def test_a_smaller_last_mini_batch_is_not_compiled_for(compilations, monkeypatch):
    served = []
    run_compiled = stacking.Stack.run_compiled
    monkeypatch.setattr(
        stacking.Stack,
        "run_compiled",
        lambda stack, samples: served.append(len(samples)) or run_compiled(stack, samples),
    )
    train_all(SMALL, trainings(), torch.optim.SGD, compiled=True)  # 100 samples: 32, 32, 32, 4
    assert served == [32] * 3 * SMALL.epochs


def test_where_it_cannot_be_compiled_it_goes_on_and_says_so(compilations, monkeypatch):
    tries = []

    def fails(*tensors):
        tries.append(tensors)
        raise RuntimeError("there is no compiler\nand so on, for a page")

    monkeypatch.setattr(torch, "compile", lambda function, **options: fails)
    plain = train_all(SMALL, trainings(), torch.optim.Adam)
    for _ in range(2):
        runs = train_all(SMALL, trainings(), torch.optim.Adam, compiled=True)
        assert runs.stacked
        assert runs.remarks == [f"{NOT_COMPILED} (RuntimeError: there is no compiler)"]
        assert torch.equal(runs.losses, plain.losses)
    assert len(tries) == 1


def test_compiled_code_that_computes_something_else_is_found_out(compilations, monkeypatch):
    def wrong(compute, **options):
        return lambda *tensors: tuple(1.01 * result for result in compute(*tensors))

    monkeypatch.setattr(torch, "compile", wrong)
    runs = train_all(SMALL, trainings(), torch.optim.Adam, compiled=True)
    assert runs.stacked
    assert runs.remarks == [f"{NOT_COMPILED} (its loss differs)"]
    assert torch.equal(runs.losses, train_all(SMALL, trainings(), torch.optim.Adam).losses)


def test_an_optimizer_that_cannot_be_stacked_cannot_be_so_compiled(compilations):
    runs = train_all(SMALL, trainings(), AcrossGroups, compiled=True)
    assert not runs.stacked
    assert [remark.startswith(IN_TURN) for remark in runs.remarks] == [True]


def test_it_is_the_work_of_all_optimizers_that_decides(monkeypatch):
    (one,) = trainings(seeds=(3,))
    # 24 steps of a net of four parameter tensors: 4 * 3,000,000 / 24 trainings are enough.
    assert is_worth_compiling(SMALL, [one] * 125_000, n_optimizers=4)
    assert not is_worth_compiling(SMALL, [one] * 124_999, n_optimizers=4)
    assert is_worth_compiling(SMALL, [one] * 500_000)
    assert not is_worth_compiling(SMALL, [one] * 499_999)


@pytest.mark.parametrize(("worth", "compiled"), [(47, True), (49, False)])
def test_by_default_the_work_decides(worth, compiled, compilations, monkeypatch):
    monkeypatch.setattr(stacking, "WORTH_COMPILING", worth)
    train_all(SMALL, trainings() * 2, torch.optim.SGD)  # 8 nets, 24 steps, 4 parameter tensors
    assert (len(compilations) > 0) == compiled
    train_all(SMALL, trainings() * 2, torch.optim.SGD, compiled=False)
    assert (len(compilations) > 0) == compiled
