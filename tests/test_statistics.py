"""Quartiles, steps to a target, and tests that may not say more than they know."""

import itertools
import math
import statistics

from lab.training.statistics import (
    format_quartiles,
    infinite_where_diverged,
    quartiles,
    seeds_needed,
    signed_rank_p,
    steps_to_target,
    told_apart,
)

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.floats(0, 1e6) | st.just(math.inf) | st.just(math.nan), min_size=1, max_size=9))
def test_quartiles_count_what_diverged_as_worst(values):
    low, median, high = quartiles(torch.tensor(values, dtype=torch.float64)).tolist()
    assert low <= median <= high
    worst = sorted(math.inf if math.isnan(value) else value for value in values)
    if len(values) % 2:
        assert median == worst[len(values) // 2]
    if math.isfinite(worst[-1]) and len(values) > 1:
        expected = statistics.quantiles(worst, n=4, method="inclusive")
        assert [low, median, high] == pytest.approx(expected)


def test_quartiles_of_no_steps_and_of_nothing():
    assert quartiles(torch.empty(0, 5)).shape == (3, 0)
    assert quartiles(torch.empty(0)).tolist() == [math.inf] * 3


def test_infinity_stays_infinity_and_nan_becomes_it():
    losses = torch.tensor([1.0, math.inf, math.nan, -math.inf])
    assert infinite_where_diverged(losses).tolist() == [1.0, math.inf, math.inf, math.inf]


def test_quartiles_as_text():
    assert format_quartiles(torch.tensor([1.0, 2, 3, 4, 5]), ".1f") == "3.0 [2.0, 4.0]"
    assert format_quartiles(torch.tensor([1.0, 2, math.inf]), ".0f") == "2 [2, -]"
    assert format_quartiles(torch.tensor([0.25]), ".2f") == "0.25"
    assert format_quartiles(torch.tensor([math.nan]), ".2f") == "-"


@given(
    losses=st.lists(st.integers(0, 64).map(float) | st.just(math.inf), max_size=30),
    target=st.integers(1, 64),
    window=st.integers(1, 10),
)
def test_steps_to_target_is_the_plain_search(losses, target, window):
    expected = math.inf
    for step in range(window, len(losses) + 1):
        if sum(losses[step - window : step]) / window < target:
            expected = step
            break
    assert steps_to_target(losses, target, window) == expected


# ---------------------------------------------------------------- what can be told apart


def p_by_listing(differences):
    """Return the two-sided p-value of the signed ranks by trying every combination of signs."""
    values = [abs(d) for d in differences if d != 0]
    ranks = [
        sum(other < value for other in values) + (1 + values.count(value)) / 2 for value in values
    ]
    seen = sum(r for r, d in zip(ranks, (d for d in differences if d), strict=True) if d > 0)
    sums = [
        sum(itertools.compress(ranks, signs))
        for signs in itertools.product((0, 1), repeat=len(ranks))
    ]
    tails = [sum(s <= seen for s in sums), sum(s >= seen for s in sums)]
    return min(1, 2 * min(tails) / len(sums))


@given(st.lists(st.integers(-4, 4) | st.sampled_from([math.inf, -math.inf]), max_size=8))
def test_the_p_value_is_that_of_listing_all_signs(differences):
    one = torch.tensor(differences, dtype=torch.float64)
    assert signed_rank_p(one, torch.zeros(len(one))) == pytest.approx(p_by_listing(differences))


def test_two_runs_that_diverged_are_equal_and_one_is_worse_than_all():
    both = torch.tensor([math.inf] * 9)
    assert signed_rank_p(both, both) == 1
    assert signed_rank_p(both, torch.ones(9)) == pytest.approx(2 / 2**9)


def test_the_p_value_of_a_hundred_pairs_is_the_normal_one():
    generator = torch.Generator().manual_seed(0)
    difference = torch.randn(100, generator=generator, dtype=torch.float64) + 0.2
    ranks = difference.abs().argsort().argsort() + 1.0
    z = (ranks[difference > 0].sum() - 2525) / math.sqrt(100 * 101 * 201 / 24)
    expected = math.erfc(abs(z.item()) / math.sqrt(2))
    assert signed_rank_p(difference, torch.zeros(100)) == pytest.approx(expected, rel=0.1)


def test_holm_goes_on_from_the_smallest_p_value_to_the_first_that_is_too_large():
    n = 7  # p is 2/128 = 0.0156 at best: enough for one pair of three (0.0167), and for the rest
    far = {"a": torch.zeros(n), "b": torch.arange(1.0, n + 1), "c": torch.arange(1.0, n + 1) * 3}
    assert set(told_apart(far).values()) == {True}
    four = far | {"d": torch.arange(1.0, n + 1) * 9}  # of six pairs 0.05/6 is too little
    assert set(told_apart(four).values()) == {False}
    # Two pairs at 2/128, and b against c at 6/128: tested at 0.05/3, 0.05/2 and then 0.05/1.
    near = far | {"b": torch.full((n,), 10.0), "c": 10 + torch.tensor([1.0, -2, 3, 4, 5, 6, 7])}
    assert signed_rank_p(near["b"], near["c"]) == pytest.approx(6 / 128)
    assert set(told_apart(near).values()) == {True}


def test_the_number_of_seeds_that_could_tell_any_apart():
    for n_labels in range(2, 9):
        n, pairs = seeds_needed(n_labels), math.comb(n_labels, 2)
        assert 2 / 2**n <= 0.05 / pairs < 2 / 2 ** (n - 1)


@pytest.mark.parametrize("n_seeds", [2, 5, 8, 10, 20, 100])
@pytest.mark.parametrize("spreads", [(1, 1, 1, 1), (1, 0.2, 3, 1)])
@pytest.mark.parametrize("share_diverged", [0.0, 0.2])
def test_where_there_is_no_difference_hardly_any_table_names_one(n_seeds, spreads, share_diverged):
    generator = torch.Generator().manual_seed(n_seeds)
    named = 0
    tables = 400 if n_seeds < 100 else 200
    for _ in range(tables):
        hard = torch.randn(n_seeds, generator=generator)  # of a seed, for all alike
        values = {
            label: hard + spread * torch.randn(n_seeds, generator=generator)
            for label, spread in zip("abcd", spreads, strict=True)
        }
        for losses in values.values():
            losses[torch.rand(n_seeds, generator=generator) < share_diverged] = math.inf
        named += any(told_apart(values).values())
    assert named / tables <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / tables)


def test_a_difference_of_one_standard_deviation_shows_over_twenty_seeds():
    generator = torch.Generator().manual_seed(3)
    found = 0
    for _ in range(200):
        values = {label: torch.zeros(20) for label in "abcd"}
        values["d"] = 1 + torch.randn(20, generator=generator)
        found += told_apart(values)["a", "d"]
    assert found / 200 > 0.85
