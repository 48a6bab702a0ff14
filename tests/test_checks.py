"""What is refused before any work: an optimizer that fails, a schedule that is too short."""

import gc
from contextlib import nullcontext
from dataclasses import replace

from lab.command_line.specs import parse_optimizer, parse_optimizers
from lab.training.checks import check_optimizers, check_task, take_a_step
from lab.training.runs import Training

import pytest
import torch
from conftest import SMALL, small_data
from torch.nn.functional import l1_loss, mse_loss
from torch.utils.data import TensorDataset

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
