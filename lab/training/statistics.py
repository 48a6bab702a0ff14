"""What many runs say together: quartiles, steps to a target, what can be told apart."""

import math
from collections.abc import Iterable, Mapping
from itertools import combinations

import torch
from torch import Tensor


def quartiles(values: Tensor) -> Tensor:
    """Return the lower quartile, median and upper quartile (3, ...) over the last dimension.

    Values that are not finite count as infinite: worse than any other.
    """
    if not values.numel():
        return torch.full((3, *values.shape[:-1]), math.inf, dtype=torch.float64)
    # quantile() would interpolate between infinities to nan.
    finite = infinite_where_diverged(values.double()).clamp(max=1e300)
    result = finite.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), dim=-1)
    return result.masked_fill(result > 1e200, math.inf)


def infinite_where_diverged(losses: Tensor) -> Tensor:
    """Return the losses, with infinity where they are not finite: worse than any other."""
    return losses.masked_fill(~losses.isfinite(), math.inf)


def format_quartiles(values: Tensor, kind: str) -> str:
    """Return `median [lower, upper]` of values (n,), or the one value; a dash for infinity."""
    low, median, high = (
        format(x, kind) if x < math.inf else "-" for x in quartiles(values).tolist()
    )
    return median if len(values) == 1 else f"{median} [{low}, {high}]"


def steps_to_target(losses: Iterable[float], target: float, window: int) -> float:
    """Return the first step at which the mean of the last `window` losses is below `target`.

    Steps count from 1. Infinity if that never happens.
    """
    losses = torch.as_tensor(losses, dtype=torch.float64)
    if len(losses) < window:
        return math.inf
    below = (losses.unfold(0, window, 1).mean(1) < target).nonzero()
    return int(below[0]) + window if len(below) else math.inf


# ---------------------------------------------------------------- what can be told apart

FAMILY_ERROR_RATE = 0.05  # how often a table may name any difference where there is none


def signed_rank_p(one: Tensor, other: Tensor) -> float:
    """Return the two-sided p-value of the exact signed-rank test of paired values (n,).

    Where there is no difference, each sign of `one - other` is a fair coin's. Infinities, runs that
    diverged, count as larger than all else; pairs of equal values say nothing and are left out.
    Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1, 1945.
    """
    difference = (one.double() - other.double()).nan_to_num(0, torch.inf, -torch.inf)
    difference = difference[difference != 0]
    _, order, counts = difference.abs().unique(return_inverse=True, return_counts=True)
    ranks = (2 * counts.cumsum(0) - counts + 1)[order]  # twice the mean rank of equal ones: whole
    ranks //= math.gcd(*ranks.tolist()) or 1  # nearly always 2
    positive = int(ranks[difference > 0].sum())
    smaller = min(positive, int(ranks.sum()) - positive)
    # The distribution of such a sum, up to this one, one coin after the other. It is symmetric.
    chances = torch.zeros(smaller + 1, dtype=torch.float64)
    chances[0] = 1
    for rank in ranks.tolist():
        chances /= 2
        chances[rank:] += chances[:-rank].clone()
    return min(1.0, 2 * chances.sum().item())


def told_apart(values: Mapping[str, Tensor]) -> dict[tuple[str, str], bool]:
    """Tell for each pair of labels whether their values, paired (n,), differ for sure.

    Where there is no difference at all, any is named in at most 5 % of cases: Holm, "A simple
    sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    p_values = {(a, b): signed_rank_p(values[a], values[b]) for a, b in combinations(values, 2)}
    apart, still = dict.fromkeys(p_values, False), True
    for k, pair in enumerate(sorted(p_values, key=lambda pair: p_values[pair])):
        still = still and p_values[pair] <= FAMILY_ERROR_RATE / (len(p_values) - k)
        apart[pair] = still
    return apart


def describe_test(n_labels: int) -> str:
    """Return how `told_apart` tests so many labels."""
    n_pairs = n_labels * (n_labels - 1) // 2
    pairs = "one pair" if n_pairs == 1 else f"{n_pairs} pairs, corrected by Holm"
    return f"exact signed-rank test, 5 %, {pairs}"


def seeds_needed(n_labels: int) -> int:
    """Return how many seeds it takes to tell any of so many labels apart at all."""
    pairs = n_labels * (n_labels - 1) // 2
    return math.ceil(math.log2(2 * pairs / FAMILY_ERROR_RATE))  # the smallest p-value is 2 / 2**n
