"""What is refused before any work: an optimizer that fails, a schedule that is too short."""

import gc
from contextlib import nullcontext
from dataclasses import replace

from lab.command_line.specs import parse_optimizer, parse_optimizers
from lab.training.checks import (
    UnusableError,
    check_optimizers,
    check_task,
    range_in_words,
    take_a_step,
)
from lab.training.runs import Training

import pytest
import torch
from conftest import SMALL, small_data
from torch.nn.functional import l1_loss, mse_loss
from torch.utils.data import TensorDataset

import optimizers
from tasks import Task

TRAINING = Training(4, *small_data(4))
STEPS = SMALL.epochs * 4  # 100 samples in batches of 32


def test_one_step_shows_what_does_not_work():
    seen = []

    class Counts(torch.optim.SGD):
        def step(self, closure=None):
            loss = super().step(closure)
            seen.append(loss.item())
            return loss

    take_a_step(SMALL, TRAINING, Counts)
    x, y = TRAINING.dataset[:32]
    assert seen[-1] == mse_loss(TRAINING.make_net(SMALL)(x), y).item()
    assert seen.count(seen[-1]) == 1  # one mini-batch, once
    with pytest.raises(ValueError, match="2D"):
        take_a_step(SMALL, TRAINING, torch.optim.Muon)
    with pytest.raises(RuntimeError, match="dense gradients"):
        take_a_step(SMALL, TRAINING, torch.optim.SparseAdam)


def test_a_schedule_is_tried_to_its_end():
    short = f"SGD + OneCycleLR(max_lr=0.1, total_steps={STEPS - 1})"
    with pytest.raises(ValueError, match="total steps"):
        take_a_step(SMALL, TRAINING, parse_optimizer(short))
    enough = f"SGD + OneCycleLR(max_lr=0.1, total_steps={STEPS})"
    take_a_step(SMALL, TRAINING, parse_optimizer(enough))
    take_a_step(replace(SMALL, epochs=5), TRAINING, parse_optimizer(short))


@pytest.mark.parametrize("fails", [False, True])
def test_trying_leaves_the_garbage_collector_on(fails):
    parsed = parse_optimizers(["SGD()", "Adam()"])
    seen = []

    def take_a_step(spec):
        seen.append(spec.call)
        assert not gc.isenabled()
        if fails:
            raise RuntimeError("no\nway")

    if fails:
        with pytest.raises(ValueError, match=r"SGD\(\) does not work here: RuntimeError: no way"):
            check_optimizers(parsed, take_a_step)
    else:
        check_optimizers(parsed, take_a_step)
    assert seen == (["SGD()"] if fails else ["SGD()", "Adam()"])
    assert gc.isenabled()


def test_what_names_no_call_is_called_by_its_label():
    def fails(make_optimizer):
        raise RuntimeError("no way")

    with pytest.raises(ValueError, match="mine does not work here: RuntimeError: no way"):
        check_optimizers({"mine": torch.optim.SGD}, fails)


class KeepsIt(torch.optim.Optimizer):
    """Keeps its rate to itself."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})
        self.lr = lr

    @torch.no_grad()
    def step(self):
        for param in self.param_groups[0]["params"]:
            param -= self.lr * param.grad


class Still(KeepsIt):
    def step(self):
        return None


def test_a_rate_is_swept_as_an_argument_and_moved_in_the_groups():
    swept = replace(TRAINING, lr=0.1)
    take_a_step(SMALL, swept, KeepsIt)
    with pytest.raises(UnusableError, match="no rates of it to compare"):
        take_a_step(SMALL, swept, Still)
    with pytest.raises(UnusableError, match="no rates of it to compare"):
        take_a_step(SMALL, swept, lambda params: KeepsIt(params, 0.1))
    scheduled = parse_optimizer("SGD + StepLR(step_size=1)", lr=0.1)
    take_a_step(SMALL, TRAINING, scheduled)
    with pytest.raises(UnusableError, match="which its steps do not use"):
        take_a_step(SMALL, TRAINING, replace(scheduled, optimizer_class=KeepsIt))


def test_a_rate_that_is_named_is_not_swept(monkeypatch):
    monkeypatch.setattr(optimizers, "KeepsIt", KeepsIt, raising=False)
    for text in ("optimizers.KeepsIt(lr=0.1)", "Muon(lr=0.02) | AdamW(lr=0.003)"):
        take_a_step(SMALL, replace(TRAINING, lr=0.1), parse_optimizer(text))


def test_labels_without_a_score_are_named():
    outputs, beyond = torch.zeros(3, 2), ": its net has scores for the classes 0 to 1, and y goes "
    for labels, said in (([0, 1, 1], ""), ([0, 1, 2], f"{beyond}from 0 to 2"),
                         ([-1, 0, 1], f"{beyond}from -1 to 1")):  # fmt: skip
        assert range_in_words(outputs, torch.tensor(labels)) == said
    labels = torch.tensor([0, 1, 2])
    for odd in ((outputs[:, 0], labels), (outputs, labels + 0.5), ((outputs,), labels),
                (outputs, [0, 1, 2])):  # fmt: skip
        assert range_in_words(*odd) == ""


def test_a_shape_is_compared_only_where_there_is_one():
    """What is one number a sample may be squeezed, but not broadcast."""
    x = torch.rand(9, 1)
    y = x.flatten()

    def check(loss, net=lambda: torch.nn.Linear(1, 1), samples=None):
        samples = samples or TensorDataset(x, y)
        check_task(Task(lambda seed: (samples, samples), net, loss, 1, 4), 0)

    check(lambda outputs, y: mse_loss(outputs.squeeze(1), y))
    with pytest.raises(
        ValueError, match=r"^its net has outputs of shape \(4, 1\) for targets of \(4,\)"
    ):
        check(lambda outputs, y: (outputs - y).square().mean())
    check(lambda outputs, y: mse_loss(outputs[0].squeeze(1), y), Pair)
    named = [(one, {"y": other}) for one, other in zip(x, y, strict=True)]
    check(lambda outputs, y: mse_loss(outputs.squeeze(1), y["y"]), samples=named)


class Pair(torch.nn.Linear):
    """A net that returns two things."""

    def __init__(self):
        super().__init__(1, 1)

    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_sum_is_refused_and_a_mean_is_not_whatever_their_scale(scale):
    check_task(replace(SMALL, loss=lambda outputs, y: scale * mse_loss(outputs, y)), 0)
    with pytest.raises(ValueError, match="its loss is a sum"):
        check_task(replace(SMALL, loss=lambda o, y: scale * mse_loss(o, y, reduction="sum")), 0)


def test_a_loss_that_knows_no_parameters_has_no_gradient():
    with pytest.raises(ValueError, match=r"^its loss has no gradient: it does not depend on"):
        check_task(replace(SMALL, loss=lambda outputs, y: mse_loss(outputs.detach(), y)), 0)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"epochs": True}, "epochs is True"),
        ({"batch_size": 0}, "batch_size is 0, and has to be a whole number of 1 or more"),
        ({"target": "0.1"}, "target is '0.1', and has to be a number"),
        ({"num_workers": -1}, "num_workers is -1, and has to be 0 or more"),
        ({"num_workers": 1.0}, "num_workers is 1.0"),
        ({"collate_fn": 3}, "collate_fn is no function"),
        ({"loss": 3}, "its loss is a int, and has to be a function"),
        ({"make_net": lambda: torch.nn.LazyLinear(1)}, "lazy layer"),
    ],
)
def test_a_field_of_another_kind_is_named(own, said):
    with pytest.raises(ValueError, match=said):
        check_task(replace(SMALL, **own), 0)


def test_fields_at_their_least_are_taken():
    least = {"epochs": 1, "batch_size": 1, "target": None, "num_workers": 0}
    check_task(replace(SMALL, **least, collate_fn=torch.utils.data.default_collate), 0)


class Bias(torch.nn.Module):
    """A net that learns a constant."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x + self.bias


def dead(bias):
    """A net of ReLUs whose inputs are all this."""
    net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU())
    torch.nn.init.zeros_(net[0].weight)
    torch.nn.init.constant_(net[0].bias, bias)
    return net


def test_a_gradient_of_zero_is_refused_only_where_every_mini_batch_has_it():
    """An l1_loss has none where as many targets lie above as below."""
    balanced, above = [[1.0], [-1.0]] * 4, [[1.0], [2.0]] * 2
    cases = [(balanced + above + balanced, Bias, True), (balanced, Bias, False),
             (above, lambda: dead(0.1), True), (above, lambda: dead(-0.1), False)]  # fmt: skip
    for y, net, learns in cases:
        dataset = TensorDataset(torch.zeros(len(y), 1), torch.tensor(y))
        task = Task(lambda seed, dataset=dataset: (dataset, dataset), net, l1_loss, 1, 8)
        with nullcontext() if learns else pytest.raises(ValueError, match="is zero everywhere"):
            check_task(task, 0)
