"""One optimizer at many rates: the grid, how it grows, the best rate and who chose it."""

import math
from dataclasses import replace
from itertools import pairwise

from lab.command_line.specs import parse_optimizer
from lab.training.runs import trainings_of
from lab.training.sweeps import Sweep, learning_rates, next_lrs, sweep

import pytest
import torch
from conftest import SMALL, made_up, made_up_sweep

TASK = replace(SMALL, epochs=2)


def test_the_grid_is_even_in_decades():
    lrs = learning_rates(1e-4, 1, 9)
    assert lrs[0] == 1e-4
    assert lrs[-1] == 1
    assert [b / a for a, b in pairwise(lrs)] == pytest.approx([10**0.5] * 8, rel=1e-5)


def test_rates_that_are_not_complete_are_left_out():
    runs = made_up([3.0, 2.0, 1.0])
    runs.trainings = runs.trainings[:13]  # of 5 seeds at each rate
    runs.losses, runs.final_losses = runs.losses[:, :13], runs.final_losses[:13]
    runs.held_out_losses = runs.held_out_losses[:13]
    result = Sweep(runs)
    assert result.lrs == [0.01, 0.1]
    assert result.final_losses.shape == (2, 5)
    assert result.best == 1


def test_the_best_rate_and_the_good_ones_around_it():
    result = made_up_sweep([9.0, 1.4, 1.0, 1.49, 1.6, 1.2])
    assert result.best == 2
    assert result.good_lrs() == (1e-4, 1e-2)  # the gap at 1.6 ends it
    assert made_up_sweep([1.0, 2.0, math.inf]).good_lrs() == (0.01, 0.01)
    assert made_up_sweep([2.0, 2.9, 3.1]).good_lrs() == (0.01, 0.1)
    assert made_up_sweep([3.1, 2.9, 2.0]).good_lrs() == (0.1, 1.0)


def test_good_may_be_within_a_factor_of_the_best_of_others():
    result = made_up_sweep([2.8, 2.0, 2.9, 3.1])
    assert result.good_lrs(2.0) == result.good_lrs() == (0.001, 0.1)
    assert result.good_lrs(1.4) == (0.01, 0.01)  # 2.0 is at most 1.5 times 1.4, 2.8 is not
    assert result.good_lrs(4 / 3) == (0.01, 0.01)
    assert result.good_lrs(1.3) is None
    assert made_up_sweep([-1.0, 2.0]).good_lrs() is None  # no loss is a factor of it
    assert made_up_sweep([math.inf, math.inf]).good_lrs() is None


def test_each_seed_is_judged_at_the_rate_that_the_other_half_chose():
    result = made_up_sweep([2.0, 1.0], seeds=4)
    result.held_out_losses = torch.tensor([[1.0, 5, 1, 5], [4.0, 2, 4, 2]])
    # Seeds 0 and 2 are best at the first rate, 1 and 3 at the second: each gets the other's.
    assert result.cross_validated_losses().tolist() == [4, 5, 4, 5]
    one = made_up_sweep([2.0, 1.0], seeds=1)
    assert one.cross_validated_losses().tolist() == [1.0]


# ---------------------------------------------------------------- how the grid grows


@pytest.mark.parametrize(
    ("medians", "more"),
    [
        ([3.0, 1.0, 2.0], []),
        ([1.0, 2.0, 3.0], [0.001]),  # of rates 0.01, 0.1 and 1, a rate a decade
        ([3.0, 2.0, 1.0], [10.0]),
        ([math.inf, math.inf, math.inf], [0.001]),
        ([3.0, 1.0, math.inf], []),
    ],
)
def test_the_grid_grows_where_the_best_rate_is_at_its_end(medians, more):
    assert next_lrs([0.01, 0.1, 1.0], made_up_sweep(medians)) == more


def test_it_grows_by_a_decade_of_the_same_spacing_and_three_of_them():
    lrs = learning_rates(1e-2, 1, 5)
    low, high = made_up_sweep([1.0, 2, 3, 4, 5], lrs), made_up_sweep([5.0, 4, 3, 2, 1], lrs)
    assert next_lrs(lrs, low) == [0.001, 0.00316228]
    assert next_lrs(lrs, high) == [3.16228, 10.0]
    grown = made_up_sweep([1.0, 2, 3], [1e-5, 1e-4, 1e-3])
    assert next_lrs([1e-2, 1e-1, 1.0], grown) == []  # three decades below 0.01
    grown = made_up_sweep([1.0, 2, 3], [1.1e-4, 1e-3, 1e-2])
    assert len(next_lrs([1e-2, 1e-1, 1.0], grown)) == 1
    assert next_lrs([0.1], made_up_sweep([1.0], [0.1])) == []  # one rate has no spacing


def test_a_sweep_that_starts_too_low_or_too_high_finds_what_is_between():
    make_optimizer = parse_optimizer("SGD")
    for lrs in ((1e-4, 1e-3), (30.0, 300.0)):
        runs = sweep(TASK, trainings_of(TASK, range(3), lrs), make_optimizer)
        result = Sweep(runs)
        assert result.edge == 0
        assert 0.01 < result.best_lr < 3
        ratios = [high / low for low, high in pairwise(result.lrs)]
        assert ratios == pytest.approx([10.0] * len(ratios), rel=1e-5)
        assert runs.stacked
        assert runs.losses.shape[1] == len(runs.trainings) == 3 * len(result.lrs)


def test_a_rate_that_the_grid_grew_by_has_the_numbers_that_it_has_in_the_grid():
    make_optimizer = parse_optimizer("Adam")
    grown = sweep(TASK, trainings_of(TASK, range(3), (1e-4, 1e-3)), make_optimizer)
    lrs = Sweep(grown).lrs
    whole = sweep(TASK, trainings_of(TASK, range(3), lrs), make_optimizer)
    assert len(lrs) > 2
    assert [(t.seed, t.lr) for t in grown.trainings] == [(t.seed, t.lr) for t in whole.trainings]
    for name in ("losses", "final_losses", "held_out_losses"):
        torch.testing.assert_close(getattr(grown, name), getattr(whole, name), rtol=1e-3, atol=1e-5)
    for name, value in whole.weights.items():
        torch.testing.assert_close(grown.weights[name], value, rtol=1e-3, atol=1e-4)
    assert grown.seconds > 0


def test_what_ends_a_sweep_while_it_grows_keeps_what_there_was():
    class Ends(torch.optim.SGD):
        error = None

        def step(self, closure=None):
            if self.error and self.param_groups[0]["lr"] > 0.005:
                raise self.error
            return super().step(closure)

    trainings = trainings_of(TASK, range(3), (1e-4, 1e-3))
    Ends.error = ValueError("boom")
    runs = sweep(TASK, trainings, Ends)
    assert runs.error is Ends.error
    assert "failed at step 1 of seed 0" in runs.note
    assert Sweep(runs).lrs == [1e-4, 1e-3]
    Ends.error = KeyboardInterrupt()
    runs = sweep(TASK, trainings, Ends)
    assert runs.interrupted
    assert runs.note == "interrupted at step 1"
    assert Sweep(runs).lrs == [1e-4, 1e-3]


def test_what_is_best_because_all_else_diverged_is_told():
    assert made_up_sweep([math.inf, 2.0, math.inf]).is_only_survivor
    assert not made_up_sweep([3.0, 2.0, math.inf]).is_only_survivor
    assert not made_up_sweep([2.0], [0.1]).is_only_survivor
    assert not made_up_sweep([math.inf, math.inf]).is_only_survivor


def test_a_sweep_says_what_its_runs_say():
    runs = made_up([3.0, 1.0, math.inf])
    runs.remarks.append("by the way")
    runs.stop(ValueError("boom"), 7)
    result = Sweep(runs)
    assert result.error is runs.error
    assert result.note == "5 of 15 diverged, from step 1 on; failed at step 7: ValueError: boom"
    assert result.remarks == ["by the way"]


def test_a_summary_has_the_same_numbers_and_not_what_is_large():
    result = made_up_sweep([9.0, 1.4, 1.0, 1.49], spread=0.1)
    summary = result.summary()
    assert not hasattr(summary, "runs")
    assert not hasattr(summary, "losses")
    for name in ("lrs", "seeds", "best_lr", "edge", "diverged"):
        assert getattr(summary, name) == getattr(result, name)
    assert summary.good_lrs() == result.good_lrs()
    assert torch.equal(summary.cross_validated_losses(), result.cross_validated_losses())
