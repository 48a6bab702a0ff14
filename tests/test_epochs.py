"""The losses after each epoch: as in a plain loop, and nothing else changes."""

import math
from dataclasses import replace

from lab.outcome import no_progress
from lab.training.adapt import judged
from lab.training.runs import Training, joined
from lab.training.stack import after_epochs
from lab.training.train import train_all, train_in_turn

import pytest
import torch
from conftest import SMALL, SmallNet, small_data, small_trainings
from torch import nn
from torch.nn.functional import dropout
from torch.utils.data import DataLoader

NAMES = "losses", "held_out"


def adam(params):
    return torch.optim.Adam(params, lr=0.01)


class Ahead(torch.optim.SGD):
    """Trains at one point and is judged at another, as Schedule-Free does; both ways round."""

    def __init__(self, params):
        super().__init__(params, lr=0.05)

    def move(self, factor):
        with torch.no_grad():
            for group in self.param_groups:
                for param in group["params"]:
                    param *= factor

    def train(self):
        self.move(1.1)

    def eval(self):
        self.move(1 / 1.1)


class Noisy(SmallNet):
    """Draws random numbers, in `eval` mode, too."""

    def forward(self, x):
        return super().forward(dropout(x, 0.1))


def looked_at(task, training, make_optimizer):
    """Return both losses after each epoch, in a loop that is made anew for every epoch.

    So no look can change what comes after it.
    """
    ends = []
    for n_epochs in range(1, task.epochs + 1):
        loader = DataLoader(
            training.dataset, task.batch_size, True, generator=torch.Generator().manual_seed(0)
        )
        torch.manual_seed(training.seed)
        net = task.make_net()
        optimizer = make_optimizer(net.parameters())
        if isinstance(optimizer, Ahead):
            optimizer.train()
        for _ in range(n_epochs):
            for x, y in loader:
                optimizer.zero_grad()
                task.loss(net(x), y).backward()
                optimizer.step()
        if isinstance(optimizer, Ahead):
            optimizer.eval()
        net.eval()
        ends.append(
            [task.loss(net(x), y).item() for x, y in (training.dataset[:], training.held_out[:])]
        )
    return torch.tensor(ends, dtype=torch.float64).unbind(1)


def with_norm():
    return nn.Sequential(nn.Linear(1, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1))


@pytest.mark.parametrize("make_optimizer", [adam, Ahead])
@pytest.mark.parametrize("make_net", [SmallNet, with_norm, Noisy])
def test_in_turn_they_are_a_plain_loops_bit_for_bit(make_optimizer, make_net):
    task = replace(SMALL, make_net=make_net, epochs=3)
    trainings = small_trainings(seeds=(4, 5))
    runs = train_in_turn(task, trainings, make_optimizer, no_progress, every_epoch=True)
    without = train_in_turn(task, trainings, make_optimizer, no_progress)
    assert without.epochs is None
    assert torch.equal(runs.losses, without.losses)
    for name, value in without.weights.items():
        assert torch.equal(runs.weights[name], value)
    assert runs.epochs.losses.dtype == torch.float64
    assert runs.epochs.losses.shape == runs.epochs.held_out.shape == (3, 2)
    assert torch.equal(runs.epochs.losses[-1], without.final_losses) or make_net is Noisy
    if make_net is not Noisy:  # which is judged otherwise each time
        for k, training in enumerate(trainings):
            for name, ends in zip(NAMES, looked_at(task, training, make_optimizer), strict=True):
                assert torch.equal(getattr(runs.epochs, name)[:, k], ends)


@pytest.mark.parametrize("make_optimizer", [adam, Ahead])
def test_in_a_stack_they_are_so_to_rounding(make_optimizer):
    trainings = small_trainings(seeds=(4, 5, 6))
    runs = train_all(SMALL, trainings, make_optimizer, every_epoch=True)
    without = train_all(SMALL, trainings, make_optimizer)
    assert runs.stacked
    assert without.epochs is None
    assert torch.equal(runs.losses, without.losses)
    assert torch.equal(runs.final_losses, without.final_losses)
    for k, training in enumerate(trainings):
        for name, ends in zip(NAMES, looked_at(SMALL, training, make_optimizer), strict=True):
            torch.testing.assert_close(getattr(runs.epochs, name)[:, k], ends, rtol=1e-4, atol=1e-6)
    assert torch.equal(runs.epochs.losses[-1], runs.final_losses)
    assert torch.equal(runs.epochs.held_out[-1], runs.held_out_losses)


def fast_from_step_7(factor):
    """Return SGD that is `factor` times as fast from the 7th step on: the 3rd of its 2nd epoch."""

    class Faster(torch.optim.SGD):
        def step(self, closure=None):
            self.count = getattr(self, "count", 0) + 1
            for group in self.param_groups:
                group["lr"] *= factor if self.count == 7 else 1
            return super().step(closure)

    return Faster


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_from_where_one_diverges_it_is_infinite(n_seeds):
    trainings = small_trainings(lrs=(1e-12, 0.01), seeds=range(n_seeds))
    runs = train_all(SMALL, trainings, fast_from_step_7(1e10), every_epoch=True)
    assert runs.stacked
    for name in NAMES:
        is_infinite = getattr(runs.epochs, name).isinf()
        assert not is_infinite[:, :n_seeds].any()
        first = [
            steps // 4 for steps in (len(runs.history(k)) - 1 for k in range(n_seeds, 2 * n_seeds))
        ]
        for k, epoch in enumerate(first, start=n_seeds):
            assert is_infinite[:, k].tolist() == [e >= epoch for e in range(6)]
    alone = train_all(SMALL, trainings[-1:], fast_from_step_7(1e10), every_epoch=True)
    assert torch.equal(alone.epochs.losses[:, 0].isinf(), runs.epochs.losses[:, -1].isinf())


class StopsAt(torch.optim.SGD):
    """Ctrl-C at step 9, the first of the third epoch."""

    def step(self, closure=None):
        self.count = getattr(self, "count", 0) + 1
        if self.count == 9:
            raise KeyboardInterrupt
        return super().step(closure)


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_what_is_stopped_has_none_of_the_epochs_that_are_missing(n_seeds):
    runs = train_all(SMALL, small_trainings(seeds=range(n_seeds)), StopsAt, every_epoch=True)
    assert runs.interrupted
    for name in NAMES:
        assert getattr(runs.epochs, name).isfinite().all(1).tolist() == [True] * 2 + [False] * 4
        assert getattr(runs.epochs, name)[2:].isnan().all()


def test_it_is_infinite_from_the_epoch_of_the_first_loss_that_is_so():
    """Even where the weights that a stack goes on with are finite."""
    losses = torch.ones(6, 3)  # two steps an epoch
    losses[1, 0] = losses[4, 2] = math.inf
    epochs = after_epochs(torch.ones(2, 3, 3), losses, 2)
    assert epochs.losses.isinf().int().tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 1]]
    assert torch.equal(epochs.losses, epochs.held_out)


def test_joined_runs_have_them_in_the_same_order():
    one, other = (
        train_all(SMALL, small_trainings(lrs=(lr,)), torch.optim.SGD, every_epoch=True)
        for lr in (0.1, 0.01)
    )
    runs = joined(one, other)
    for name in NAMES:
        parts = getattr(other.epochs, name), getattr(one.epochs, name)
        assert torch.equal(getattr(runs.epochs, name), torch.cat(parts, 1))
    assert torch.equal(runs.epochs.losses[-1], runs.final_losses)
    one.epochs = None
    assert joined(one, other).epochs is None


def test_a_look_leaves_no_trace():
    net = nn.Linear(2, 2)
    optimizer = Ahead(net.parameters())
    before, state = net.weight.detach().clone(), torch.get_rng_state()
    with judged(optimizer):
        torch.testing.assert_close(net.weight, before / 1.1)
        torch.rand(3)
    assert torch.equal(net.weight, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_loss_that_is_infinite_after_the_last_step_is_so_in_the_last_epoch():
    task = replace(SMALL, epochs=1, batch_size=100)
    training = Training(4, *small_data(4), 1e30)
    runs = train_in_turn(task, [training], torch.optim.SGD, no_progress, every_epoch=True)
    assert math.isfinite(runs.history(0)[-1])
    assert runs.epochs.losses.tolist() == [[math.inf]]
