"""Tasks as they are named on the command line, with the options' own settings, and checked."""

import sys
from argparse import Namespace
from dataclasses import replace

from lab.command_line.options import add_batch_size, add_seeds, add_target, add_task, add_tasks
from lab.command_line.tasks import data_on, load_task, load_tasks

import pytest
import torch
from conftest import SMALL

from tasks import TASKS


@pytest.fixture
def load(parser):
    """Return a function that loads the task that the words name, and its first training."""
    add_task(parser)
    add_batch_size(parser)
    add_target(parser)

    def load(*words):
        options = parser.parse([*words])
        return load_task(options, options.task)

    return load


def test_a_task_has_its_own_settings_or_those_of_the_options(load):
    task, _ = load("--task", "spirals")
    own = TASKS["spirals"]
    for name in ("make_net", "loss", "epochs", "batch_size", "target"):
        assert getattr(task, name) == getattr(own, name)
    words = "--epochs", "3", "--batch-size", "7", "--target", "0.5"
    task, _ = load("--task", "spirals", *words)
    assert (task.epochs, task.batch_size, task.target) == (3, 7, 0.5)


def test_the_words_of_a_task_reach_its_data(load):
    words = "--seed", "4", "--task", "sine(samples=50, noise=0.0, periods=2.0)"
    task, training = load(*words)
    assert training.seed == 4
    assert len(training.dataset) == len(training.held_out) == 50
    x, y = training.dataset.tensors
    torch.testing.assert_close(y, (2 * torch.pi * x).sin())
    assert task.make_data(4) == (training.dataset, training.held_out)  # made once


def test_a_task_of_ones_own_is_found_in_the_working_directory(load, homework):
    homework("from tasks import TASKS\nfrom dataclasses import replace\n"
             "mine = replace(TASKS['sine'], epochs=99)\n")  # fmt: skip
    task, training = load("--task", "homework.mine(samples=20)")
    assert task.epochs == 99
    assert len(training.dataset) == 20


def test_data_that_an_installation_lacks_are_told(load, monkeypatch):
    def lacks(name):
        raise FileNotFoundError(name)

    monkeypatch.setattr("matplotlib.cbook.get_sample_data", lacks)
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    for name, what in (("terrain", "jacksboro_fault_dem.npz"), ("prose", "pydoc_data")):
        with pytest.raises(ValueError, match=what):
            load("--task", name)
    assert load("--task", "sine")


# ---------------------------------------------------------------- many tasks


@pytest.fixture
def load_many(parser):
    add_tasks(parser)
    add_seeds(parser, 2)
    return lambda *words: load_tasks(parser.parse([*words]))


def test_tasks_are_found_by_name_each_once_in_order(load_many, homework):
    homework("from conftest import SMALL\n")
    loaded = load_many("--tasks", "logistic", "homework.SMALL", "sine(samples=40)", "logistic")
    assert list(loaded) == ["logistic", "homework.SMALL", "sine(samples=40)"]
    task, _ = loaded["homework.SMALL"]
    assert task.epochs == SMALL.epochs
    _, training = loaded["sine(samples=40)"]
    assert len(training.dataset) == 40


def test_all_tasks_are_the_default_and_those_that_fail_are_left_out(load_many, monkeypatch, capsys):
    def fails(seed):
        raise ValueError("no data")

    for name in list(TASKS):
        if name != "logistic":
            monkeypatch.delitem(TASKS, name)
    monkeypatch.setitem(TASKS, "empty", replace(SMALL, make_data=fails))
    assert list(load_many()) == ["logistic"]
    message = "task empty: its data cannot be made: ValueError: no data"
    assert capsys.readouterr().err == f"left out: {message}\n"
    with pytest.raises(ValueError, match=message):  # but not where it was asked for
        load_many("--tasks", "empty")


def test_many_tasks_are_refused_where_one_is_too_large(load_many):
    with pytest.raises(ValueError, match="--task, of 10000000000 samples: this would need"):
        load_many("--tasks", "logistic", "sine(samples=10000000000)")


def test_the_data_are_on_the_device_that_is_asked_for():
    make_data = data_on("meta", SMALL.make_data)  # a device that every torch has
    for dataset, own in zip(make_data(3), SMALL.make_data(3), strict=True):
        assert [tensor.device.type for tensor in dataset.tensors] == ["meta", "meta"]
        assert [t.shape for t in dataset.tensors] == [t.shape for t in own.tensors]
    assert data_on("cpu", SMALL.make_data)(3)[0].tensors[0].device.type == "cpu"


def test_data_are_made_once_for_each_seed():
    make_data = data_on("cpu", SMALL.make_data)
    assert make_data(3) is make_data(3)
    assert not torch.equal(make_data(3)[0].tensors[0], make_data(4)[0].tensors[0])


@pytest.mark.parametrize(
    ("scales", "said"),
    [("1, 1, 99", False), ("1, 1, 101", True), ("1, 0, 1", False), ("0, 0, 0", False)],
)
def test_features_of_very_different_scales_are_told_and_what_to_write(
    scales, said, homework, capsys
):
    homework(
        "import torch\nfrom torch import nn\nfrom data import split\nfrom tasks import Task\n"
        "x = torch.tensor([[-1.0], [1]] * 30) * torch.tensor([" + scales + "])\n"
        "mine = Task(lambda seed: split(seed, x, x[:, :1] / 50, held_out=10),\n"
        "    lambda: nn.Linear(3, 1), nn.functional.mse_loss, 1, 10)\n"
    )
    load_task(Namespace(seed=0), "homework.mine")
    out = capsys.readouterr().out
    assert ("x = (x - x.mean(0)) / x.std(0)" in out) == said
    if said:
        assert "features go from 1 to 1e+02" in out
