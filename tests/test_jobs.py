"""An optimizer tried on a task has the numbers of plain loops, at every rate and its own."""

import math

from lab.command_line.specs import parse_optimizer
from lab.training.jobs import default_lr_of, try_rates
from lab.training.runs import trainings_of
from lab.training.sweeps import grid_and_judges

import pytest
import torch
from conftest import FAILS, SMALL, textbook_training
from torch.nn.functional import mse_loss

LRS = 0.01, 0.1, 1.0
SEEDS = 3, 4
TRAININGS = trainings_of(SMALL, SEEDS, LRS)


def held_out_loss(make_optimizer, seed):
    """Return a plain loop's loss on the held-out set."""
    train_set, held_out = SMALL.make_data(seed)
    _, net = textbook_training(
        train_set, SMALL.make_net, make_optimizer, mse_loss, seed, SMALL.epochs, SMALL.batch_size
    )
    x, y = held_out.tensors
    return mse_loss(net(x), y).item()


def test_it_has_the_numbers_of_plain_loops():
    result = try_rates(SMALL, TRAININGS, parse_optimizer("SGD"))
    assert result.sweep.lrs[:3] == list(LRS)
    assert not hasattr(result.sweep, "runs")  # they would be much to keep
    for row, lr in enumerate(result.sweep.lrs):
        for k, seed in enumerate(SEEDS):
            expected = held_out_loss(lambda params, lr=lr: torch.optim.SGD(params, lr=lr), seed)
            expected = expected if math.isfinite(expected) else math.inf
            assert result.sweep.held_out_losses[row, k].item() == pytest.approx(expected, rel=1e-3)
    assert result.seconds > 0
    assert (result.error, result.remarks) == (None, [])
    assert result.note == "2 of 6 diverged, from step 22 on"  # at the highest rate


def test_judges_have_them_too():
    trainings = grid_and_judges(SMALL, SEEDS, LRS, (7, 8))
    result = try_rates(SMALL, trainings, parse_optimizer("SGD"))
    lr = result.sweep.best_lr
    for k, seed in enumerate((7, 8)):
        expected = held_out_loss(lambda params: torch.optim.SGD(params, lr=lr), seed)
        assert result.sweep.judged_losses[k].item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("spec", "lr"), [("Adagrad", 0.01), ("NAdam", 0.002), ("SGD(momentum=0.9)", 0.001)]
)
def test_the_default_rate_is_tried_whether_it_is_on_the_grid_or_not(spec, lr):
    make_optimizer = parse_optimizer(spec)
    result = try_rates(SMALL, TRAININGS, make_optimizer)
    assert result.default_lr == lr == default_lr_of(make_optimizer)
    for k, seed in enumerate((3, 4)):
        expected = held_out_loss(make_optimizer, seed)  # it names no rate
        assert result.default_losses[k].item() == pytest.approx(expected, rel=1e-3)


def test_what_has_no_default_rate_has_none():
    def make(params, lr):
        return torch.optim.SGD(params, lr=lr)

    assert default_lr_of(make) is None
    assert default_lr_of(lambda params: None) is None
    assert default_lr_of(torch.optim.SGD) == 0.001


def test_an_optimizer_that_fails_is_a_result(homework):
    homework(FAILS)
    result = try_rates(SMALL, TRAININGS, parse_optimizer("homework.Fails"))
    assert "failed at step 3 of seed 3: RuntimeError: boom" in result.note
    assert isinstance(result.error, RuntimeError)
    assert result.default_losses is None
    assert str(result.error) == "boom"


def test_what_is_interrupted_keeps_what_there_is():
    class Stops(torch.optim.SGD):
        count = 0

        def step(self, closure=None):
            Stops.count += 1
            if Stops.count == 30:
                raise KeyboardInterrupt
            return super().step(closure)

    result = try_rates(SMALL, TRAININGS[:2], Stops)
    assert result.interrupted
    assert "interrupted at step" in result.note
    assert result.default_losses is None
