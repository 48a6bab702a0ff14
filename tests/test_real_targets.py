"""Targets, losses and accuracies as people have them: the numbers of a plain loop.

And an accuracy only where it is one.
"""

from lab.training.metrics import metric_of, threshold_of

import pytest
import torch
from small_files import (
    HEAD,
    LR,
    SEED,
    Maybe,
    assert_quartiles,
    assert_refused,
    assert_saved,
    assert_task_is_trained,
    momentum,
    objects_of,
    plain_training,
    run,
)
from torch.nn.functional import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
)

import compare_optimizers
from tasks import Task


def scores(outputs, y):
    return outputs.argmax(1) == y


def last_scores(outputs, y):
    return outputs.argmax(-1) == y


def logit(outputs, y):
    return (outputs > 0) == (y > 0.5)


def labelled(outputs, y):
    return (outputs.argmax(1) == y)[y != -100]


BCE = "lambda score, t: F.binary_cross_entropy_with_logits(score, t.float())"

# A task of each kind, and which of its outputs are right: None where there is no accuracy.
TASKS = {
    # ------------------------------------------------ targets, and what is an accuracy
    "one score a sample": (logit, f"""
net = lambda: nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
mine = Task(data(x, y), net, {BCE}, 3, 20)
"""),
    "a column of scores": (logit, f"""
mine = Task(data(x, y.unsqueeze(1)), lambda: nn.Linear(2, 1), {BCE}, 3, 20)
"""),
    "a column of scores, the targets of bool": (logit, f"""
mine = Task(data(x, y.unsqueeze(1).bool()), lambda: nn.Linear(2, 1), {BCE}, 3, 20)
"""),
    "a column of scores, the targets of float": (Maybe(logit), """
loss = nn.BCEWithLogitsLoss()
mine = Task(data(x, y.unsqueeze(1).float()), lambda: nn.Linear(2, 1), loss, 3, 20)
"""),
    "probabilities, whose border is a half": (Maybe(lambda p, y: (p > 0.5) == (y > 0)), """
net = lambda: nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())
bce = lambda p, t: F.binary_cross_entropy(p, t.float())
mine = Task(data(x, y.unsqueeze(1)), net, bce, 3, 20)
"""),
    "a regression on 0 and 1": (Maybe(lambda o, y: (o > 0.5) == (y > 0)), """
mine = Task(data(x, y.unsqueeze(1)), lambda: nn.Linear(2, 1), F.mse_loss, 3, 20)
"""),
    "a hinge on -1 and 1": (Maybe(lambda score, y: (score > 0) == (y > 0)), """
hinge = lambda score, t: F.relu(1 - t * score).mean()
mine = Task(data(x, 2 * y.unsqueeze(1) - 1), lambda: nn.Linear(2, 1), hinge, 3, 20)
"""),
    "counts": (None, """
counts = torch.poisson((x[:, :1] + 1).exp(), generator=g).long()
mine = Task(data(x, counts), lambda: nn.Linear(2, 1), nn.PoissonNLLLoss(), 3, 20)
"""),
    "counts that are 0 and 1 only": (None, """
mine = Task(data(x, y.unsqueeze(1)), lambda: nn.Linear(2, 1), nn.PoissonNLLLoss(), 3, 20)
"""),
    "whole numbers to regress on": (None, """
whole = (10 * x.sum(1, keepdim=True)).long()
mine = Task(data(x, whole), lambda: nn.Linear(2, 1), F.mse_loss, 3, 20)
"""),
    "classes in a column": (Maybe(lambda o, y: o.argmax(1) == y[:, 0]), """
loss = lambda scores, t: F.cross_entropy(scores, t.squeeze(1))
mine = Task(data(x, y.unsqueeze(1)), lambda: nn.Linear(2, 2), loss, 3, 20)
"""),
    "log probabilities, weighted": (scores, """
net = lambda: nn.Sequential(nn.Linear(2, 2), nn.LogSoftmax(1))
mine = Task(data(x, y), net, nn.NLLLoss(weight=torch.tensor([1.0, 3.0])), 3, 20)
"""),
    "probabilities of classes as targets": (None, """
mine = Task(data(x, x.softmax(1)), lambda: nn.Linear(2, 2), F.cross_entropy, 3, 20)
"""),
    "classes in an order, a logit for each step": (None, """
levels = (x[:, 0] > -0.5).long() + (x[:, 0] > 0.5).long()
bits = lambda y: (y.unsqueeze(1) >= torch.arange(3)).float()
loss = lambda o, y: F.binary_cross_entropy_with_logits(o, bits(y))
mine = Task(data(x, levels), lambda: nn.Linear(2, 3), loss, 3, 20)
"""),
    "a class for each place of a sequence": (scores, """
series = torch.randn(120, 2, 5, generator=g)
mine = Task(data(series, (series[:, 0] > 0).long()), lambda: nn.Conv1d(2, 3, 1),
            F.cross_entropy, 3, 20)
"""),
    "a class for each pixel": (scores, """
images = torch.rand(120, 1, 4, 4, generator=g)
mine = Task(data(images, (images[:, 0] > 0.5).long()), lambda: nn.Conv2d(1, 2, 1),
            F.cross_entropy, 3, 20)
"""),
    "scores on the last axis, as many as places": (Maybe(last_scores), """
series = torch.randn(120, 3, 2, generator=g)
loss = lambda scores, t: F.cross_entropy(scores.flatten(0, 1), t.flatten())
mine = Task(data(series, (series[..., 0] > 0).long()), lambda: nn.Linear(2, 3), loss, 3, 20)
"""),
    "several labels at once": (Maybe(logit), f"""
mine = Task(data(x, (x > 0).long()), lambda: nn.Linear(2, 2), {BCE}, 3, 20)
"""),
    "some samples without a label": (labelled, """
y[::2] = -100
mine = Task(data(x, y), lambda: nn.Linear(2, 2), F.cross_entropy, 3, 20)
"""),
    # ------------------------------------------------ losses
    "a loss that goes below zero": (None, """
def likelihood(outputs, y):
    mean, log_variance = outputs[:, :1], outputs[:, 1:]
    return 0.5 * (log_variance + (y - mean) ** 2 / log_variance.exp()).mean()


mine = Task(parabola, lambda: nn.Linear(1, 2), likelihood, 1, 100)
"""),
    "three quantiles, for which the target broadcasts on purpose": (None, """
LEVELS = torch.tensor([0.1, 0.5, 0.9])
pinball = lambda q, t: torch.maximum(LEVELS * (t - q), (LEVELS - 1) * (t - q)).mean()
mine = Task(data(x, x.sum(1, keepdim=True)), lambda: nn.Linear(2, 3), pinball, 3, 20)
"""),
    "a loss that squeezes": (None, """
loss = lambda outputs, t: F.mse_loss(outputs.squeeze(1), t)
mine = Task(data(x, x.sum(1)), lambda: nn.Linear(2, 1), loss, 3, 20)
"""),
    "targets of double": (None, """
mine = Task(data(x, x.sum(1, keepdim=True).double()), lambda: nn.Linear(2, 1), F.mse_loss, 3, 20)
"""),
    "a penalty on the outputs' spread": (None, """
loss = lambda outputs, t: F.mse_loss(outputs, t) + 0.1 * outputs.var()
mine = Task(data(x, x.sum(1, keepdim=True)), lambda: nn.Linear(2, 1), loss, 3, 20)
"""),
}  # fmt: skip


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("name", TASKS)
def test_it_is_trained_as_by_a_plain_loop(name, seeds, small_file):
    is_right, source = TASKS[name]
    small_file(HEAD + source)
    assert_task_is_trained(HEAD + source, is_right, seeds)


def test_a_mini_batch_without_any_label_is_no_divergence(small_file):
    # Its loss is nan, its gradient zero, and a plain loop goes on. Here it may as well be refused,
    # or its row may end there: but nothing has diverged.
    source = (
        HEAD
        + """
y[::2] = -100
mine = Task(data(x, y), lambda: nn.Linear(2, 2), F.cross_entropy, 5, 4)
"""
    )
    small_file(source)
    end = run(compare_optimizers, "--task", "b.mine", "--optimizers", "SGD", "--lr", "0.05")
    plain = plain_training(
        objects_of(source)["mine"], lambda p: torch.optim.SGD(p, lr=0.05), goes_on=True
    )
    assert sum(loss != loss for loss in plain.losses) > 0
    assert "diverged" not in end.said
    if end.status == 2:
        assert_refused(end, "b.mine", never=["SGD"])
    else:
        assert_saved(end, end.status)
        (held_out,), (accuracy,) = end.column("held-out loss"), end.column("accuracy")
        if end.status == 0:
            assert float(held_out) == pytest.approx(plain.held_out, abs=1e-5)
            assert accuracy == f"{plain.share(labelled):.1%}"


def test_one_score_a_sample_has_regions_or_is_refused_before_it_is_trained(small_file):
    # Regions are dear to draw for every kind of target: a line before the training is enough.
    small_file(HEAD + TASKS["one score a sample"][1])
    end = run(compare_optimizers, "--task", "b.mine", "--fit", "--optimizers", "SGD")
    assert end.status in (0, 2)
    assert "Traceback" not in end.said


def test_a_task_may_bring_a_metric_of_its_own_which_is_shown_in_place_of_an_accuracy(small_file):
    # Its title is the function's name: no other field is needed to name it.
    source = (
        HEAD
        + """
def error(outputs, targets):
    return (outputs.argmax(1) != targets).double().mean()


mine = Task(data(x, y), lambda: nn.Linear(2, 2), F.cross_entropy, 3, 20, metric=error)
"""
    )
    small_file(source)
    words = ["--optimizers", "Momentum", "--lr", str(LR), "--seeds", "3"]
    end = run(compare_optimizers, "--task", "b.mine", *words)
    assert_saved(end)
    assert not end.column("accuracy")
    task = objects_of(source)["mine"]
    plains = [plain_training(task, momentum, SEED + k) for k in range(3)]
    (cell,) = end.column("error")
    errors = [plain.share(lambda outputs, y: ~scores(outputs, y)) for plain in plains]
    assert_quartiles(cell, errors, rounding=0.006)


def test_a_class_beyond_the_scores_is_none():
    task = Task(None, None, cross_entropy, 1, 1)
    for n_classes, metric in ((2, None), (3, "accuracy")):
        found = metric_of(task, torch.zeros(3, n_classes), torch.tensor([0, 1, 2]))
        assert getattr(found, "name", None) == metric


def test_chances_decide_at_a_half_and_logits_at_zero():
    targets = torch.tensor([0.0, 1.0])
    for loss, threshold in (
        (binary_cross_entropy, 0.5),
        (binary_cross_entropy_with_logits, 0.0),
        (lambda p, t: binary_cross_entropy(1 - p, t), None),  # a higher output is no 1
    ):
        assert threshold_of(loss, torch.zeros(2), targets) == threshold
