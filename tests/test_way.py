"""Which way is taken, by a count held against one made by hand; and that all give the same."""

from dataclasses import replace

from lab.outcome import no_progress
from lab.training import way
from lab.training.adapt import manners
from lab.training.datasets import on_device
from lab.training.runs import Training, trainings_of
from lab.training.train import train_all, train_in_turn

import pytest
import torch
from conftest import SMALL, assert_like_alone, small_trainings
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from models import mlp
from tasks import TASKS, Task


def adam(params):
    return torch.optim.Adam(params, lr=0.01)


def task_of(make_net, *shape, batch_size=64):
    """A task of ten classes, with one mini-batch of such x."""

    def make_data(seed):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(batch_size, *shape, generator=generator)
        y = torch.randint(10, (batch_size,), generator=generator)
        return TensorDataset(x, y), TensorDataset(x[:9], y[:9])

    return Task(make_data, make_net, cross_entropy, epochs=1, batch_size=batch_size)


def work(task):
    return way.work_of(task, *trainings_of(task, [0]))


def convolutions(*channels):
    """Return what makes two convolutions of 3 x 3, each pooled, and a layer, for 28 x 28."""
    one, two = channels
    return lambda: nn.Sequential(
        nn.Conv2d(1, one, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(one, two, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(25 * two, 10),
    )  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 64])
def test_the_work_of_layers_is_the_count_made_by_hand(batch_size):
    # There: 16·32 and 32·10 products a sample, and as many sums. Back: those again for the weights,
    # and for what goes on below the second layer. The parameters: 16·32 + 32 + 32·10 + 10 = 874.
    task = task_of(lambda: mlp(16, 32, 10), 16, batch_size=batch_size)
    assert work(task) == batch_size * 2 * (2 * (16 * 32 + 32 * 10) + 32 * 10) + 100 * 874


def test_so_it_is_of_a_convolution():
    task = task_of(
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(36 * 4, 10)), 1, 8, 8
    )
    there = 36 * 4 * 9 + 36 * 4 * 10
    assert work(task) == 64 * 2 * (2 * there + 36 * 4 * 10) + 100 * (4 * 10 + 36 * 40 + 10)


def test_and_of_an_lstm():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.out = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 10)

        def forward(self, x):
            return self.out(self.cell(x)[0][:, -1])

    cell = 7 * 20 * (3 + 5)  # seven steps, four gates of five
    expected = 64 * 2 * 3 * (cell + 5 * 10) + 100 * (20 * 8 + 40 + 60)
    assert work(task_of(Last, 7, 3)) == expected


QUICKER = {
    "16-32-10": (lambda: mlp(16, 32, 10), (16,), True),
    "64-64-10": (lambda: mlp(64, 64, 10), (64,), True),
    "784-64-10": (lambda: mlp(784, 64, 10), (784,), False),
    "784-256-10": (lambda: mlp(784, 256, 10), (784,), False),
    "784-512-512-10": (lambda: mlp(784, 512, 512, 10), (784,), False),
    "convolutions": (convolutions(16, 32), (1, 28, 28), False),
}


@pytest.mark.parametrize("name", QUICKER)
def test_small_nets_are_stacked_and_those_of_a_real_size_are_not(name):
    make_net, shape, is_stack = QUICKER[name]
    task = task_of(make_net, *shape)
    assert way.is_stack_quicker(task, trainings_of(task, range(10))) == is_stack


@pytest.mark.parametrize("name", TASKS)
def test_the_tasks_of_the_lab_are_stacked(name):
    assert way.is_stack_quicker(TASKS[name], trainings_of(TASKS[name], range(4)))


def test_elsewhere_than_on_the_processor_all_are_one_stack(monkeypatch):
    """Whatever their work is. Torch's meta device, which computes nothing, stands for a GPU."""
    monkeypatch.delattr(way, "work_of")
    task = task_of(*QUICKER["784-256-10"][:1], 784)
    there = [
        replace(training, dataset=on_device(training.dataset, torch.device("meta")))
        for training in trainings_of(task, range(4))
    ]
    assert way.is_stack_quicker(task, there)
    assert next(there[0].make_net(task).parameters()).device.type == "meta"


def test_a_mini_batch_of_many_is_more_work():
    def is_stack(batch_size):
        task = task_of(lambda: mlp(64, 64, 10), 64, batch_size=batch_size)
        return way.is_stack_quicker(task, trainings_of(task, range(4)))

    assert is_stack(512)
    assert not is_stack(1024)


def test_two_or_three_nets_are_quicker_in_turn(monkeypatch):
    monkeypatch.undo()  # what conftest.py has set
    assert way.MIN_NETS == 4
    for n_seeds in (1, 2, 3, 4):
        runs = train_all(SMALL, small_trainings(seeds=range(n_seeds)), adam)
        assert runs.stacked == (n_seeds == 4)
        assert runs.remarks == []


@pytest.mark.parametrize("name", ["784-64-10", "convolutions"])
def test_whichever_way_the_numbers_are_the_same_to_rounding(name, monkeypatch):
    make_net, shape, _ = QUICKER[name]
    task = replace(task_of(make_net, *shape), batch_size=16)
    trainings = trainings_of(task, range(3), (0.001, 0.01))
    monkeypatch.setattr(way, "MAX_WORK", 0)
    in_turn = train_all(task, trainings, adam)
    assert not in_turn.stacked
    assert in_turn.remarks == []  # it is the quicker way: there is nothing to explain
    monkeypatch.setattr(way, "MAX_WORK", 1e12)
    runs = train_all(task, trainings, adam)
    assert runs.stacked
    torch.testing.assert_close(runs.losses, in_turn.losses, rtol=2e-3, atol=1e-5)
    assert_like_alone(runs, task, trainings, adam)


@pytest.fixture
def stacks_of_three(monkeypatch):
    """The most that a stack takes; look at the seeds of each."""
    n_parameters = sum(param.numel() for param in SMALL.make_net().parameters())
    monkeypatch.setattr(way, "MAX_PARAMETERS", 3 * n_parameters + 1)


def test_stacks_of_so_many_give_each_net_its_numbers(stacks_of_three):
    trainings = small_trainings(lrs=(0.1, 0.001), seeds=range(4))  # their order stays
    sizes = [len(stack) for stack in way.stacks_of(SMALL, trainings)]
    assert sizes == [2, 3, 3]
    runs, again = (train_all(SMALL, trainings, adam, every_epoch=True) for _ in range(2))
    assert runs.stacked
    assert runs.trainings == trainings
    assert_like_alone(runs, SMALL, trainings, adam)
    assert torch.equal(runs.losses, again.losses)
    assert torch.equal(runs.epochs.held_out[-1], runs.held_out_losses)


def test_stacks_are_as_few_as_can_be_and_of_like_size(monkeypatch):
    monkeypatch.setattr(way, "MAX_PARAMETERS", 10_000)
    task = task_of(lambda: mlp(16, 32, 10), 16)  # 874 parameters: eleven of them
    for n_trainings in range(1, 50):
        trainings = [Training(seed, None, None) for seed in range(n_trainings)]
        stacks = way.stacks_of(task, trainings)
        assert [training for stack in stacks for training in stack] == trainings
        sizes = [len(stack) for stack in stacks]
        assert len(stacks) == -(-n_trainings // 11)
        assert max(sizes) <= 11
        assert max(sizes) - min(sizes) <= 1


def test_progress_counts_the_stacks(stacks_of_three):
    seen = []

    def progress(items, total, unit):
        for item in items:
            seen.append(total)
            yield item

    train_all(SMALL, small_trainings(seeds=range(5)), adam, progress)
    assert seen == [2, 2]


@pytest.mark.parametrize("n_done", [0, 1])
def test_of_stacks_those_that_are_complete_are_kept(n_done, stacks_of_three, monkeypatch):
    made = []

    class StopsLater(torch.optim.SGD):
        def __init__(self, params, lr=0.1):
            super().__init__(params, lr=lr)
            made.append(self)

        def step(self, closure=None):
            # One to look at; a stack's, and those of its two shadows.
            n_optimizers = 1 + 3 * n_done + 3
            if len(made) == n_optimizers and self is made[-1]:
                raise KeyboardInterrupt
            return super().step(closure)

    monkeypatch.setitem(manners, StopsLater, "closure")
    trainings = small_trainings(seeds=range(6))
    runs = train_all(SMALL, trainings, StopsLater)
    assert runs.interrupted
    assert runs.note == "interrupted at step 1"
    assert len(runs.trainings) == 3
    assert len(runs.losses) == (24 if n_done else 0)


def test_where_one_stack_is_not_like_its_nets_all_are_trained_in_turn(stacks_of_three):
    trainings = small_trainings(seeds=range(5))
    runs = train_all(SMALL, trainings, lambda params: torch.optim.LBFGS(params, lr=0.01))
    alone = train_in_turn(
        SMALL, trainings, lambda params: torch.optim.LBFGS(params, lr=0.01), no_progress
    )
    assert not runs.stacked
    assert torch.equal(runs.losses, alone.losses)
