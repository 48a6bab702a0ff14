"""Quartiles, and steps to a target."""

import math
import statistics

from lab.training.statistics import (
    format_quartiles,
    infinite_where_diverged,
    quartiles,
    steps_to_target,
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
