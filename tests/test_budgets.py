"""The numbers of compare_budgets.py, held to all orders written out, and to known answers."""

import itertools
import math

from lab.training.budgets import (
    best_end,
    best_of,
    left_out,
    list_to_try,
    main_effect,
    quantiles_of_best,
)

import pytest
import torch

LOSSES = torch.tensor(  # (trials, seeds): the second seed likes another trial
    [[0.3, 0.5, 0.4], [0.1, 0.9, 0.2], [0.7, 0.1, 0.6], [0.5, 0.3, 0.3]], dtype=torch.float64
)


def in_all_orders(losses, k):
    """Return what an engineer ends with in each order, for each seed that chooses."""
    ends = []
    for seed in range(losses.shape[1]):
        judges = [s for s in range(losses.shape[1]) if s != seed]
        for order in itertools.permutations(range(len(losses)), k):
            best = min(order, key=lambda trial: losses[trial, seed].item())
            ends.append(losses[best, judges].mean().item())
    return ends


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_best_of_k_is_the_mean_over_all_orders(k):
    ends = in_all_orders(LOSSES, k)
    assert best_of(LOSSES)[k - 1].item() == pytest.approx(sum(ends) / len(ends), rel=1e-12)


def test_a_table_worked_out_by_hand():
    # The first seed takes trial 2 (3, judged) before 1 (5); the second takes 1 (2) before 2 (1).
    losses = torch.tensor([[2.0, 5.0], [1.0, 3.0]], dtype=torch.float64)
    # k = 1: (5 + 3) / 2 by the first, (2 + 1) / 2 by the second. k = 2: 3, and 1.
    assert best_of(losses).tolist() == [(4 + 1.5) / 2, (3 + 1) / 2]


def test_among_equal_trials_chance_decides():
    losses = torch.tensor([[1.0, 4.0], [1.0, 2.0], [1.0, 6.0]], dtype=torch.float64)
    # The first seed cannot tell them apart: 4, whatever k. The second sees 2 < 4 < 6; all are 1.
    assert best_of(losses).tolist() == pytest.approx([2.5] * 3)


def test_one_trial_and_one_seed_are_what_they_are():
    assert best_of(torch.tensor([[0.25, 0.75]], dtype=torch.float64)).tolist() == [0.5]
    assert best_of(torch.tensor([[0.4], [0.2]], dtype=torch.float64)).tolist() == pytest.approx(
        [0.3, 0.2]
    )


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_band_holds_so_many_of_all_orders(k):
    ends = sorted(in_all_orders(LOSSES, k))
    for share in (0.25, 0.5, 0.75):
        found = quantiles_of_best(LOSSES, (share,))[0, k - 1].item()
        assert found == pytest.approx(ends[math.ceil(share * len(ends) - 1e-9) - 1])


def test_many_trials_do_not_overflow():
    losses = torch.rand(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    curve = best_of(losses)
    assert curve[0].item() == pytest.approx(losses.mean().item())
    _, best = losses.min(0)
    assert curve[-1].item() == pytest.approx((losses[best[0], 1] + losses[best[1], 0]).item() / 2)


# ---------------------------------------------------------------- which hyperparameter mattered


def test_the_share_of_each_dimension_of_a_known_function():
    # Of a + b x + c y, with x and y uniform, x alone explains b^2 / (b^2 + c^2). Of (x - 1/2)^2,
    # which a line does not see, x explains all; of (x - 1/2) (y - 1/2), neither explains anything.
    x, y = torch.quasirandom.SobolEngine(2, scramble=True, seed=1).draw(1024).double().T
    line = 5 + 3 * x + 4 * y
    assert main_effect(line, x) == pytest.approx(9 / 25, abs=0.03)
    assert main_effect(line, y) == pytest.approx(16 / 25, abs=0.03)
    assert main_effect((x - 0.5) ** 2, x) == pytest.approx(0.92, abs=0.01)  # 8 bins are coarse
    assert main_effect((x - 0.5) ** 2, x, bins=64) == pytest.approx(1, abs=0.01)
    assert main_effect((x - 0.5) * (y - 0.5), x) == pytest.approx(0, abs=0.02)


def test_chance_explains_nothing_in_the_mean():
    generator = torch.Generator().manual_seed(0)
    shares = []
    for _ in range(200):
        values, places = torch.rand(2, 64, generator=generator, dtype=torch.float64)
        shares.append(main_effect(values, places))
    # Bins alone would explain 7 / 63 of it; what is left are the ends above 0 of that.
    assert sum(shares) / len(shares) < 0.04
    assert min(shares) == 0


def test_what_has_no_variance_or_too_few_values_explains_nothing():
    assert main_effect(torch.ones(8), torch.rand(8)) == 0
    assert main_effect(torch.tensor([1.0, 2.0, 3.0]), torch.rand(3)) == 0
    assert main_effect(torch.tensor([1.0, 2.0, 1.0, 2.0]), torch.tensor([0.1, 0.9, 0.2, 0.8])) == 1


def test_the_end_where_the_best_lie():
    places = torch.linspace(0, 1, 40, dtype=torch.float64)
    assert best_end(places, places) == 0
    assert best_end(-places, places) == 1
    assert best_end((places - 0.5) ** 2, places) == -1
    assert best_end((places - 0.8) ** 2, places) == -1


# ---------------------------------------------------------------- a list to try


def test_a_list_begins_with_the_best_mean_and_goes_on_with_what_adds_most():
    logs = torch.tensor(  # (tasks, trials)
        [[1.0, 0.0, 5.0, 1.0], [1.0, 5.0, 0.0, 1.1], [1.0, 5.0, 5.0, 1.2]], dtype=torch.float64
    )
    # Means: 1, 3.3, 3.3, 1.1. Beside the first, the second and third make it 2/3, the last nothing.
    assert list_to_try(logs, 3) == [0, 1, 2]
    assert list_to_try(logs, 9) == [0, 1, 2, 3]


def test_a_list_is_judged_on_the_task_that_it_has_not_seen():
    good, bad = [1.0, 1.0], [9.0, 9.0]
    losses = [torch.tensor(rows, dtype=torch.float64) for rows in (
        [good, bad, [2.0, 2.0]], [good, bad, [2.0, 2.0]], [bad, good, [2.0, 2.0]]
    )]  # fmt: skip
    # A list of one: on the third task the others' favourite is bad; on the others, trial 3 is best
    # beside one task each: means of logarithms are ln 3 for trials 1 and 2, ln 2 for the last.
    assert left_out(losses, 1) == [2, 2, 9]
    assert left_out(losses, 2) == [1, 1, 1]
