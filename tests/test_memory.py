"""What would not fit into the memory is refused, with the option that asks for it."""

import io
import math
import os
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from lab.command_line import memory
from lab.command_line.options import add_batch_size, add_seeds, add_task
from lab.command_line.tasks import load_task
from lab.training.hyperparameter import Hyperparameter
from lab.training.runs import Training

import pytest
import torch
from conftest import SMALL, small_data
from torch.utils.data import TensorDataset

DATA = small_data(0)

# A task whose data are said to be large, without any memory being used.
LARGE = """
import torch
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset
from tasks import Task


class Large(torch.Tensor):
    nbytes = 10**15


x = torch.zeros(1000, 1)
data = TensorDataset(x, x)
data.tensors = (x.as_subclass(Large), x)
large = Task(lambda seed: (data, data), lambda: torch.nn.Linear(1, 1), mse_loss, 1, 1)
"""


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--seeds", "100000000"], "--seeds 100000000"),
        (["--epochs", "1000000000"], "--epochs 1000000000"),
        (["--task", "sine(samples=1000000000000)"], "--task, of 1000000000000 samples"),
        (["--seeds", "2", "--task", "sine(samples=10000000000)"], "--task, of 10000000000 samples"),
        (["--task", "homework.large"], "--task, of 1000 samples"),
    ],
)
def test_a_size_that_cannot_be_had_is_refused_with_what_it_needs(words, name, parser, homework):
    homework(LARGE)
    add_task(parser)
    add_batch_size(parser)
    add_seeds(parser, 1)
    options = parser.parse(words)
    with pytest.raises(ValueError, match="GB of memory, and there are") as refusal:
        load_task(options, options.task)
    assert str(refusal.value).startswith(f"{name}: this would need about ")


def test_four_fifths_of_the_memory_may_be_used(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 1000.0)
    memory.check_memory(Namespace(), 799)
    with pytest.raises(ValueError, match="this would need"):
        memory.check_memory(Namespace(), 801)


def test_the_option_that_is_largest_beside_what_is_usual_is_named(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 2e9)
    options = Namespace(epochs=2000, seeds=100, lr_count=None)
    with pytest.raises(ValueError, match="epochs") as refusal:
        memory.check_memory(options, 5e9, 10_000)
    message = "--epochs 2000: this would need about 5 GB of memory, and there are 2"
    assert str(refusal.value) == message
    options.lr_count = 5000
    with pytest.raises(ValueError, match="--lr-count 5000: "):
        memory.check_memory(options, 5e9, 10_000)


@pytest.fixture
def needed(monkeypatch):
    """Return a function that tells how many bytes a task would need."""

    def needed(task=SMALL, data=DATA, **counts):
        seen = []
        monkeypatch.setattr(memory, "check_memory", lambda options, needed, _: seen.append(needed))
        options = Namespace(batch_size=None, **counts)
        memory.check_memory_of_task(options, task, len(data[0]), Training(0, *data))
        return seen[0]

    return needed


def test_the_memory_needed_grows_with_all_that_is_kept(needed):
    def wide_net():
        return torch.nn.Sequential(torch.nn.Linear(1, 5000), torch.nn.Linear(5000, 1))

    def wide(dataset):
        x, y = dataset.tensors
        return TensorDataset(x, y.expand(-1, 100_000))

    base = {"seeds": 10, "lr_count": 9}
    for name in base:
        assert needed(**base | {name: base[name] * 2}) > 1.5 * needed(**base)
    assert needed(**base, over=Hyperparameter("momentum", (0, 0.5, 0.9))) == pytest.approx(
        needed(seeds=10, lr_count=27)
    )
    assert needed(seeds=10, trials=9) == needed(**base)
    assert needed(replace(SMALL, epochs=600), **base) > 5 * needed(**base)
    assert needed(replace(SMALL, epochs=60, batch_size=1), **base) > 5 * needed(**base)
    long = replace(SMALL, epochs=600)
    assert needed(long, **base, optimizers=["a"] * 8) > 4 * needed(long, **base)
    assert needed(replace(SMALL, make_net=wide_net), **base) > 5 * needed(**base)
    assert needed(data=tuple(map(wide, DATA)), **base) > 5 * needed(**base)
    assert needed(data=small_data(0, samples=100_000), **base) > 5 * needed(**base)


def test_it_is_what_was_measured(needed):
    # 1000 seeds x 9 rates x 4 optimizers took 0.4 GB beyond what an empty run takes.
    task, data = replace(SMALL, epochs=12), small_data(0, samples=1000)
    assert 0.4e9 < needed(task, data, seeds=1000, lr_count=9, optimizers=["a"] * 4) < 2e9


def test_many_large_nets_need_what_was_measured(needed):
    # 25 nets of 669,706 parameters, by two optimizers, took 0.57 GB beyond what an empty run takes.
    def large_net():
        return torch.nn.Linear(669, 1001)

    task = replace(SMALL, make_net=large_net)
    assert 0.3e9 < needed(task, seeds=5, lr_count=5, optimizers=["a"] * 2) < 0.6e9
    assert 1e9 < needed(task, seeds=5, lr_count=50, optimizers=["a"]) < 2e9  # 250 of them


def test_the_memory_that_there_is_is_what_the_system_says(monkeypatch):
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0.01 * physical < memory.available_memory() <= physical

    def fails(*_):
        raise OSError

    monkeypatch.setattr(Path, "open", fails)  # no /proc
    assert memory.available_memory() == physical
    monkeypatch.setattr(os, "sysconf", fails)
    assert memory.available_memory() == math.inf


def test_the_memory_that_there_is_is_read_in_kilobytes(monkeypatch):
    lines = io.StringIO("MemTotal: 9 kB\nMemAvailable:    3000 kB\n")
    monkeypatch.setattr(Path, "open", lambda path: lines)
    assert memory.available_memory() == 3000 * 1024
