"""Where there is an accuracy: a higher score for the true class lowers the loss."""

from functools import partial

from lab.training.metrics import is_rising, metric_of

import pytest
import torch
from torch.nn.functional import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    mse_loss,
    multi_margin_loss,
    nll_loss,
    one_hot,
)

from tasks import Task


def task_of(loss):
    return Task(None, None, loss, 1, 1)


@pytest.mark.parametrize("n_classes", [2, 3, 10, 100])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 0.9])
def test_smoothed_labels_have_an_accuracy(n_classes, smoothing):
    loss = partial(cross_entropy, label_smoothing=smoothing)
    outputs, targets = torch.eye(n_classes)[:2], torch.tensor([0, 0])
    metric = metric_of(task_of(loss), outputs, targets)
    assert metric.name == "accuracy"
    assert metric.value(outputs, targets) == 0.5
    assert metric.chances(outputs).argmax(1).tolist() == [0, 1]


def test_scores_of_any_scale_have_an_accuracy():
    outputs, targets = torch.rand(6, 3), torch.tensor([0, 1, 2] * 2)
    losses = {
        "margin": multi_margin_loss,
        "log-probabilities": nll_loss,
        "squares": lambda scores, t: mse_loss(scores, one_hot(t, 3).float()),
    }
    for name, loss in losses.items():
        assert metric_of(task_of(loss), outputs, targets), name
    turned = {
        "a cost": lambda scores, t: cross_entropy(-scores, t),
        "the next class": lambda scores, t: cross_entropy(scores, (t + 1) % 3),
        "all the same": lambda scores, t: cross_entropy(scores, t, label_smoothing=1.0),
        "no matter": lambda scores, t: scores.square().mean(),
    }
    for name, loss in turned.items():
        assert metric_of(task_of(loss), outputs, targets) is None, name


@pytest.mark.parametrize(
    ("loss", "outputs"),
    [
        (binary_cross_entropy_with_logits, [-2.0, 3.0, 0.5]),
        (binary_cross_entropy, [0.1, 0.9, 0.6]),
    ],
)
def test_a_logit_or_a_chance_of_one_makes_two_chances(loss, outputs):
    outputs, targets = torch.tensor(outputs).unsqueeze(1), torch.tensor([[0.0], [1.0], [0.0]])
    metric = metric_of(task_of(loss), outputs, targets)
    assert metric.value(outputs, targets) == pytest.approx(2 / 3)
    chances = metric.chances(outputs)
    for chance, outcome in ((chances[:, 1:], 1.0), (chances[:, :1], 0.0)):  # a loss is its -log
        for k in range(3):
            cost = loss(outputs[k], torch.tensor([outcome]))
            assert -chance[k].log().item() == pytest.approx(cost.item(), rel=1e-5)


@pytest.mark.parametrize("targets", [[0.0, 0.5, 1.0], [1.0, 1.0, 1.0], [0.0, 1.0, 2.0]])
def test_targets_that_are_not_zeros_and_ones_have_no_accuracy(targets):
    loss, targets = binary_cross_entropy_with_logits, torch.tensor(targets)
    assert metric_of(task_of(loss), torch.zeros(3), targets) is None


def test_what_stays_does_not_rise():
    assert is_rising([0.1, 0.2, 0.3])
    assert not is_rising([0.1, 0.1, 0.3])
    assert not is_rising([0.1, 0.2, 0.2])
    assert not is_rising([0.3, 0.2])
    assert not is_rising([0.1, None, 0.3])
