"""One optimizer at many rates: the grid, how it grows, the best rate and who chose it."""

import math
from dataclasses import replace
from itertools import pairwise

from lab.command_line.specs import parse_optimizer
from lab.training.runs import trainings_of
from lab.training.sweeps import (
    Sweep,
    choose_and_judge,
    grid_and_judges,
    learning_rates,
    next_lrs,
    sweep,
)
from lab.training.train import train_all

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


def test_seeds_choose_and_others_judge_with_the_numbers_they_have_alone():
    make_optimizer = parse_optimizer("SGD(momentum=0.5)")
    trainings = grid_and_judges(SMALL, (3, 4), (0.03, 0.1, 0.3), (5, 6, 7))
    result = choose_and_judge(SMALL, trainings, make_optimizer)
    alone = Sweep(sweep(SMALL, trainings[:6], make_optimizer))
    assert torch.equal(result.held_out_losses, alone.held_out_losses)
    assert (result.seeds, result.best_lr) == ([3, 4], alone.best_lr)
    assert result.judged.seeds == [5, 6, 7]
    expected = train_all(SMALL, trainings_of(SMALL, (5, 6, 7), [alone.best_lr]), make_optimizer)
    assert torch.equal(result.judged_losses, expected.held_out_losses)
    assert torch.equal(result.judged.final_losses, expected.final_losses)
    assert torch.equal(result.losses_at_best(), expected.losses)
    assert torch.equal(result.final_losses_at_best(), expected.final_losses)
    assert result.lr_history() == expected.lr_history([0])
    assert result.seconds > result.runs.seconds
    *chosen, first, _, third = result.rows()
    assert [row[:3] for row in chosen[:3]] == [
        (result.lrs[0], 3, "chosen"),
        (result.lrs[0], 4, "chosen"),
        (result.lrs[1], 3, "chosen"),
    ]
    assert [row[3] for row in chosen] == result.final_losses.flatten().tolist()
    assert [row[4] for row in chosen] == result.held_out_losses.flatten().tolist()
    assert first[:3] == (alone.best_lr, 5, "judged")
    assert third[3:] == (expected.final_losses[2].item(), expected.held_out_losses[2].item())


def test_without_judges_what_chose_is_shown_and_nothing_is_judged():
    result = made_up_sweep([2.0, 1.0, 3.0])
    assert result.judged is result.judged_losses is None
    assert result.final_losses_at_best().tolist() == result.final_losses[1].tolist()
    assert [row[2] for row in result.rows()] == ["chosen"] * 15


def test_judges_that_are_ended_early_judge_nothing():
    judging = made_up([1.0], [0.1], 4)
    judging.stop(ValueError("boom"), 7)
    judging.remarks.append("by the way")
    result = Sweep(made_up([2.0, 1.0, 3.0]), judging)
    assert (result.error, result.judged, result.remarks) == (judging.error, None, ["by the way"])
    assert result.note == "judging: failed at step 7: ValueError: boom"
    assert len(result.final_losses_at_best()) == 5


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
    result = made_up_sweep([9.0, 1.4, 1.0, 1.49], spread=0.1, judges=3)
    summary = result.summary()
    assert not hasattr(summary, "runs")
    assert not hasattr(summary, "losses")
    for name in ("lrs", "seeds", "best_lr", "edge", "diverged"):
        assert getattr(summary, name) == getattr(result, name)
    assert summary.good_lrs() == result.good_lrs()
    assert list(summary.rows()) == list(result.rows())
