"""A stack's pass as compiled code: the same numbers, where it is worth it and where it works."""

import inspect
import os
import shutil
from dataclasses import replace

from lab.command_line.specs import parse_optimizer
from lab.outcome import no_progress
from lab.training import compiled, machine
from lab.training.compiled import NOT_COMPILED, is_worth_compiling
from lab.training.runs import trainings_of
from lab.training.stack import Stack, train_stack
from lab.training.train import IN_TURN, train_all

import pytest
import torch
from conftest import SMALL, SmallNet, assert_like_alone, small_trainings

from tasks import TASKS


def train_compiled(task, trainings, make_optimizer):
    return train_stack(task, trainings, make_optimizer, no_progress, compiled=True)


@pytest.fixture(autouse=True)
def given_up(monkeypatch):
    """What this process could not compile: nothing yet."""
    monkeypatch.setattr(compiled, "given_up", [])
    return compiled.given_up


@pytest.fixture
def compilations(monkeypatch):
    """Let torch.compile leave everything as it is; a list of what it was asked for."""
    asked = []

    def leave(function, **options):
        asked.append(function)
        return function

    monkeypatch.setattr(torch, "compile", leave)
    compiled.compiled_pass.cache_clear()
    yield asked
    compiled.compiled_pass.cache_clear()


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
    for spec, seeds in (("SGD(momentum=0.9)", range(4)), ("Adam", range(9)), ("RMSprop", (3, 4))):
        every, make_optimizer = small_trainings((0.01, 0.1), seeds), parse_optimizer(spec)
        runs = train_compiled(SMALL, every, make_optimizer)
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
        runs.append(train_compiled(task, every, torch.optim.SGD))
    assert runs[0].remarks == runs[1].remarks == []
    assert torch.equal(runs[0].losses, runs[1].losses)
    assert torch.equal(runs[0].final_losses, runs[1].final_losses)


class Normed(torch.nn.Sequential):
    """A net with buffers, which its training moves."""

    def __init__(self):
        super().__init__(
            torch.nn.Linear(1, 5, bias=False), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 1)
        )


class Scaled(SmallNet):
    """A net with a parameter of no dimensions."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.scale * super().forward(x)


@pytest.mark.parametrize("make_net", [SmallNet, Normed, Scaled])
@pytest.mark.parametrize("batch_size", [32, 50, 1000])
def test_what_is_compiled_is_the_same_pass(make_net, batch_size, compilations):
    task = replace(SMALL, make_net=make_net, batch_size=batch_size)
    every = small_trainings((0.01, 0.1))
    plain = train_stack(task, every, torch.optim.Adam, no_progress)
    assert compilations == []
    runs = train_compiled(task, every, torch.optim.Adam)
    assert len(compilations) == 1
    assert runs.remarks == []
    close = {"rtol": 2e-3, "atol": 1e-5}
    torch.testing.assert_close(runs.losses, plain.losses, **close)
    torch.testing.assert_close(runs.held_out_losses, plain.held_out_losses, **close)


def test_a_smaller_last_mini_batch_is_not_compiled_for(compilations, monkeypatch):
    served = []
    run_compiled = Stack.run_compiled

    def look(stack, samples):
        served.append(len(samples))
        return run_compiled(stack, samples)

    monkeypatch.setattr(Stack, "run_compiled", look)
    train_compiled(SMALL, small_trainings(), torch.optim.SGD)  # 100 samples: 32, 32, 32, 4
    assert served == [32] * 3 * SMALL.epochs


# ---------------------------------------------------------------- whether it is compiled


def test_the_work_of_a_stack_decides():
    (one,) = small_trainings(seeds=(3,))
    # 24 steps of a net of four parameter tensors: 4 * 750,000 / 24 trainings are enough.
    assert is_worth_compiling(SMALL, [one] * 125_000)
    assert not is_worth_compiling(SMALL, [one] * 124_999)


@pytest.mark.parametrize(("worth", "asked"), [(47, True), (49, False)])
def test_where_it_is_worth_it_a_stack_is_compiled(worth, asked, compilations, monkeypatch):
    monkeypatch.setattr(compiled, "WORTH_COMPILING", worth)
    runs = train_all(SMALL, small_trainings() * 2, torch.optim.SGD)  # 8 nets, 24 steps, 4 tensors
    assert runs.stacked
    assert len(compilations) == asked


@pytest.fixture
def _always(monkeypatch):
    monkeypatch.setattr(compiled, "WORTH_COMPILING", 0)


@pytest.mark.usefixtures("_always", "compilations")
def test_where_it_cannot_be_compiled_it_goes_on_and_says_so_once(monkeypatch):
    tries = []

    def fails(*tensors):
        tries.append(tensors)
        raise RuntimeError("there is no compiler\nand so on, for a page")

    monkeypatch.setattr(torch, "compile", lambda function, **options: fails)
    plain = train_stack(SMALL, small_trainings(), torch.optim.Adam, no_progress)
    runs = [train_all(SMALL, small_trainings(), torch.optim.Adam) for _ in range(2)]
    for run in runs:
        assert run.stacked
        assert torch.equal(run.losses, plain.losses)
    assert runs[0].remarks == [f"{NOT_COMPILED} (RuntimeError: there is no compiler)"]
    assert runs[1].remarks == []
    assert len(tries) == 1


@pytest.mark.usefixtures("_always", "compilations")
def test_compiled_code_that_computes_something_else_is_found_out(monkeypatch):
    def wrong(compute, **options):
        return lambda *tensors: tuple(1.01 * result for result in compute(*tensors))

    monkeypatch.setattr(torch, "compile", wrong)
    runs = [train_all(SMALL, small_trainings(), torch.optim.Adam) for _ in range(2)]
    assert [run.stacked for run in runs] == [True, True]
    assert runs[0].remarks == [f"{NOT_COMPILED} (its loss differs)"]
    assert runs[1].remarks == []
    plain = train_stack(SMALL, small_trainings(), torch.optim.Adam, no_progress)
    assert torch.equal(runs[0].losses, plain.losses)


@pytest.mark.usefixtures("_always", "compilations")
def test_what_could_not_be_compiled_stops_no_other_net_or_loss(given_up):
    compiled.give_up(SMALL)
    (one,) = small_trainings(seeds=(3,))
    assert not is_worth_compiling(replace(SMALL, epochs=9), [one])
    assert is_worth_compiling(replace(SMALL, make_net=Scaled), [one])
    assert is_worth_compiling(replace(SMALL, loss=torch.nn.functional.l1_loss), [one])


@pytest.mark.usefixtures("_always", "compilations")
def test_an_optimizer_that_cannot_be_stacked_cannot_be_so_compiled(given_up):
    make_optimizer = parse_optimizer("LBFGS", lr=0.01)  # it goes by all parameters at once
    runs = train_all(SMALL, small_trainings(), make_optimizer)
    assert not runs.stacked
    assert [remark.startswith(IN_TURN) for remark in runs.remarks] == [True]
    assert given_up == []  # the next optimizer's stack may be
