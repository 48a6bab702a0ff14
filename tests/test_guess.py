"""The best constant guess, against closed forms."""

from dataclasses import replace

from lab.training import guess
from lab.training.guess import constant_guess
from lab.training.runs import Training

import pytest
import torch
from conftest import SMALL, small_trainings
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import TensorDataset

import compare_optimizers
from tasks import Task

X = torch.zeros(50, 3)


def training_of(y, held_out):
    sets = (TensorDataset(X[: len(each)], each) for each in (y, held_out))
    return Training(0, *sets)


def task_of(loss, outputs=1):
    return Task(lambda seed: None, lambda: nn.Linear(3, outputs), loss, 1, 10)


def test_of_squares_it_is_the_mean():
    y = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) * 1000 + 500
    loss = constant_guess(task_of(mse_loss, 2), training_of(y, y[:20]))
    assert loss == pytest.approx((y[:20] - y.mean(0)).square().mean().item(), rel=1e-4)


def test_of_classes_it_is_how_often_they_come():
    y = torch.tensor([0] * 25 + [1] * 15 + [2] * 10)
    loss = constant_guess(task_of(cross_entropy, 3), training_of(y, y))
    shares = torch.tensor([0.5, 0.3, 0.2])
    assert loss == pytest.approx(-(shares * shares.log()).sum().item(), rel=1e-4)


def test_it_is_chosen_on_the_training_set_and_judged_on_the_other():
    loss = constant_guess(task_of(mse_loss), training_of(torch.zeros(9, 1), torch.ones(5, 1)))
    assert loss == pytest.approx(1.0)


def test_of_many_outputs_it_is_chosen_by_as_many_samples_as_are_quick(monkeypatch):
    monkeypatch.setattr(guess, "MAX_NUMBERS", 8)
    y = torch.tensor([[1.0, 1.0]] * 4 + [[100.0, 100.0]] * 9)
    assert constant_guess(task_of(mse_loss, 2), training_of(y, y[:4])) == pytest.approx(0, abs=1e-6)


def test_of_data_that_are_no_tensors_there_is_none():
    y = torch.zeros(9, 1)
    training = training_of(y, y)
    pairs = [(x, y) for x, y in training.dataset]
    for one in (replace(training, dataset=pairs), replace(training, held_out=pairs)):
        assert constant_guess(task_of(mse_loss), one) is None


@pytest.mark.parametrize(
    "task",
    [
        replace(SMALL, make_net=lambda: WithTwo()),
        replace(SMALL, loss=lambda outputs, y: 1 / 0),
        replace(SMALL, loss=lambda outputs, y: outputs.sum() * float("nan")),
    ],
)
def test_where_there_is_none_nothing_is_said(task):
    assert constant_guess(task, small_trainings()[0]) is None


class WithTwo(nn.Module):
    def forward(self, x):
        return x, x


def test_it_stands_below_the_table(workdir, capsys):
    words = ["--no-show", "--epochs", "1", "--optimizers", "SGD"]
    assert compare_optimizers.main([*words, "--task", "parabola(samples=64)"]) == 0
    assert "\nThe best constant guess has a held-out loss of 0." in capsys.readouterr().out
