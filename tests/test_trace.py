"""Where a training goes, held against a plain loop."""

import math
from dataclasses import replace
from functools import partial

from lab.command_line.specs import parse_optimizers
from lab.training.runs import MOVED_NOTHING, trainings_of
from lab.training.trace import moments, trace

import pytest
import torch
from conftest import SMALL, SmallNet, textbook_training
from torch import nn
from torch.optim import SGD

(TRAINING,) = trainings_of(SMALL, [3])


def test_weights_after_each_step_and_how_far_they_moved():
    (spec,) = parse_optimizers(["SGD(lr=0.1)"]).values()
    run = trace(SMALL, TRAINING, spec, [0, 4, 24])
    assert [*run.seen] == [0, 4, 24]
    assert (run.steps, run.lr, run.diverged_at, run.note, run.remarks) == (24, 0.1, None, "", [])
    torch.manual_seed(3)
    first = SmallNet()
    make = TRAINING.dataset, SmallNet, partial(SGD, lr=0.1), SMALL.loss
    _, net = textbook_training(*make, seed=3, epochs=6, batch_size=32)
    _, epoch = textbook_training(*make, seed=3, epochs=1, batch_size=32)
    for step, plain in ((0, first), (4, epoch), (24, net)):
        for name, value in plain.named_parameters():
            assert torch.equal(run.seen[step][name], value)
    pairs = zip(net.parameters(), first.parameters(), strict=True)
    moved = sum((a - b).square().sum().item() for a, b in pairs) ** 0.5
    assert run.moved == pytest.approx(moved, rel=1e-5)


def test_the_last_weights_are_there_and_where_it_diverged():
    (spec,) = parse_optimizers(["SGD(lr=1e30)"]).values()
    run = trace(SMALL, TRAINING, spec, [0])
    assert run.diverged_at == run.steps == [*run.seen][-1] < 24
    assert run.note == f"diverged at step {run.steps}"
    calm = trace(SMALL, TRAINING, partial(SGD, lr=0.1), [0, 1])
    assert [*calm.seen] == [0, 1, 24]


class Fails(SGD):
    def step(self, closure):
        self.count = getattr(self, "count", 0) + 1
        if self.count == 3:
            raise self.error
        return super().step(closure)


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (RuntimeError("boom"), "failed at step 3: RuntimeError: boom"),
        (SystemExit(2), "failed at step 3: it calls exit()"),
        (KeyboardInterrupt(), "interrupted at step 3"),
    ],
)
def test_what_ends_a_training_is_told(error, note):
    made = type("Fails", (Fails,), {"error": error})
    run = trace(SMALL, TRAINING, partial(made, lr=0.1), range(25))
    assert [*run.seen] == [0, 1, 2]
    assert run.note.startswith(note)
    assert run.interrupted == isinstance(error, KeyboardInterrupt)


def test_steps_that_move_nothing_are_remarked():
    run = trace(SMALL, TRAINING, partial(SGD, lr=0.0), [])
    assert run.remarks == [MOVED_NOTHING]
    assert run.moved == 0


class Elsewhere(SGD):
    """Is judged at weights that are one higher."""

    def move(self, by):
        with torch.no_grad():
            for param in self.param_groups[0]["params"]:
                param += by

    def eval(self):
        self.move(1)

    def train(self):
        if self.state.get("begun"):
            self.move(-1)
        self.state["begun"] = True


def test_weights_are_taken_where_they_are_judged():
    judged = trace(SMALL, TRAINING, partial(Elsewhere, lr=0.1), [3, 24])
    plain = trace(SMALL, TRAINING, partial(SGD, lr=0.1), [3, 24])
    for step in (3, 24):
        for name, value in plain.seen[step].items():
            torch.testing.assert_close(judged.seen[step][name], value + 1)


def test_moments_are_squares_and_all_where_there_is_room():
    assert moments(90, 10) == [0, 1, 4, 10, 18, 28, 40, 54, 71, 90]
    assert moments(5, 100) == [0, 1, 2, 3, 4, 5]
    assert moments(1, 2) == [0, 1]


def test_a_rate_that_is_a_tensor_is_a_number():
    assert trace(SMALL, TRAINING, partial(SGD, lr=torch.tensor(0.25)), []).lr == 0.25


def test_the_loss_is_the_last_one_once_all_are_there():
    run = trace(SMALL, TRAINING, partial(SGD, lr=0.1), [])
    run.losses.append(0.5)
    assert run.loss is None
    run.losses.append(0.25)
    assert run.loss == 0.25


def test_buffers_come_along():
    task = replace(
        SMALL,
        make_net=lambda: nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)),
    )
    (training,) = trainings_of(task, [3])
    run = trace(task, training, partial(SGD, lr=0.1), [0, 24])
    assert not run.seen[0]["1.running_mean"].any()
    assert run.seen[24]["1.running_mean"].any()
    assert run.seen[24]["1.num_batches_tracked"] == 24
    names = {name for name, _ in task.make_net().named_parameters()}
    squares = ((run.seen[24][name] - run.seen[0][name]).square().sum().item() for name in names)
    assert run.moved == pytest.approx(math.sqrt(sum(squares)), rel=1e-5)
