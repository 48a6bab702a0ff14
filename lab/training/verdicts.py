"""Worse, equal, or not known: what values of many seeds, paired, say of each two, and how surely.

Of each pair there is an interval for the factor between the two that is typical of a seed. All
intervals of a table hold at once in 95 % of tables. So does all that is read from them:

    equal       it lies within 10 %, from 1/1.1 to 1.1, whether 1 is in it or not
    worse       it lies above 1, and not within 10 %
    not known   else
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import torch
from torch import Tensor

ERROR_RATE = 0.05  # the share of tables in which anything that is said may be wrong
EQUAL = 0.1  # what differs by no more is equal


@dataclass(frozen=True)
class Verdict:
    """How one compares with another: "worse", "better", "equal" or "not known".

    It has `typical` times the other's loss, from `low` to `high` times for sure; where these are
    no factors, so much more. `seeds` says about how many it would take to know what is not known.
    """

    word: str
    typical: float
    low: float
    high: float
    is_factor: bool = True
    seeds: int | None = None


def verdicts(
    values: Mapping[str, Tensor],
    equal: float = EQUAL,
    error_rate: float = ERROR_RATE,
    as_factors: bool = True,
) -> dict[tuple[str, str], Verdict]:
    """Return what is known of each two labels, in either order, given values (n,) paired by seed.

    Smaller is better. What is not finite is a run that diverged, worse than any other; two that
    did are equal. Where a value is not above 0, or `as_factors` is not set, differences stand in
    place of factors, and those are equal that are within `equal` times the smallest median size.

    The chance that any interval is wrong is at most `error_rate`: each pair has its share of that
    (Bonferroni). So the best may be chosen by the same values.
    """
    logs = {k: each.double().nan_to_num(math.inf, math.inf) for k, each in values.items()}
    as_factors = as_factors and all(bool((each > 0).all()) for each in logs.values())
    if as_factors:
        limit = math.log1p(equal)
        logs = {k: each.log() for k, each in logs.items()}
    else:
        limit = equal * min(float(each.abs().median()) for each in logs.values())
    error_rate /= math.comb(len(logs), 2) or 1
    found = {}
    for a, b in combinations(logs, 2):
        difference = (logs[a] - logs[b]).nan_to_num(0, math.inf, -math.inf)  # nan: both diverged
        typical, low, high = shift(difference, error_rate)
        may_be_equal = bool(difference.isfinite().all())
        for pair, interval in (((a, b), (typical, low, high)), ((b, a), (-typical, -high, -low))):
            found[pair] = verdict(*interval, limit, may_be_equal, len(difference), as_factors)
    return found


def verdict(
    typical: float,
    low: float,
    high: float,
    limit: float,
    may_be_equal: bool,
    n: int,
    as_factors: bool,
) -> Verdict:
    """Return what a shift and its interval over n seeds say; of factors they are logarithms."""
    is_equal = may_be_equal and -limit <= low and high <= limit
    word = "equal" if is_equal else "worse" if low > 0 else "better" if high < 0 else "not known"
    seeds = None
    if word == "not known":
        seeds = seeds_to_settle(n, typical, low, high, limit, may_be_equal)
    if as_factors:
        typical, low, high = map(exp, (typical, low, high))
    return Verdict(word, typical, low, high, as_factors, seeds)


def exp(x: float) -> float:
    """Return e to the power of x, infinite where no float is as large."""
    return math.exp(x) if x < 709 else math.inf


def shift(difference: Tensor, error_rate: float) -> tuple[float, float, float]:
    """Return the Hodges-Lehmann estimate of the differences (n,), and its interval.

    The estimate is the median of the Walsh averages: those of each two, and each itself. The
    interval goes from the k-th smallest of them to the k-th largest, and holds all shifts that the
    exact two-sided signed-rank test does not reject. Equal ones only make it too long. With too few
    to reject anything it is endless.
    Hodges and Lehmann, "Estimates of location based on rank tests", Annals of Mathematical
    Statistics 34, 1963.
    """
    one, other = torch.triu_indices(len(difference), len(difference))
    averages = ((difference[one] + difference[other]) / 2).sort().values
    known = averages[~averages.isnan()]
    n_unknown = len(averages) - len(known)  # of infinity and minus infinity: in doubt, both
    middle = known[(len(known) - 1) // 2], known[len(known) // 2]
    typical = ((middle[0] + middle[1]) / 2).nan_to_num(0, math.inf, -math.inf)
    k = cutoff(len(difference), error_rate) - n_unknown
    low, high = (known[k - 1].item(), known[-k].item()) if k > 0 else (-math.inf, math.inf)
    return typical.item(), low, high


@cache
def cutoff(n: int, error_rate: float) -> int:
    """Return the largest k with P(T < k) <= error_rate / 2, where T is a sum of signed ranks.

    T sums those of the ranks 1 to n at which a fair coin shows heads. Wilcoxon, "Individual
    comparisons by ranking methods", Biometrics Bulletin 1, 1945.
    """
    chances = torch.zeros(n * (n + 1) // 2 + 1, dtype=torch.float64)  # of each sum
    chances[0] = 1
    for rank in range(1, n + 1):
        chances[rank:] += chances[:-rank].clone()
        chances /= 2
    return int((chances.cumsum(0) <= error_rate / 2).sum())


def seeds_to_settle(
    n: int, typical: float, low: float, high: float, limit: float, may_be_equal: bool
) -> int | None:
    """Return about how many seeds leave nothing open, if what is typical stays so.

    An interval shrinks as the square root of the number of seeds grows, until it either leaves 0
    out or lies within the limit. None if it never does.
    """
    if typical < 0:
        typical, low, high = -typical, -high, -low
    too_long = math.inf  # times so much
    if 0 < typical < math.inf:
        too_long = (typical - low) / typical
    if typical < limit and may_be_equal:
        within = max((high - typical) / (limit - typical), (typical - low) / (limit + typical))
        too_long = min(too_long, within)
    return math.ceil(n * too_long**2) if too_long < math.inf else None


def seeds_needed(n_pairs: int, error_rate: float = ERROR_RATE) -> int:
    """Return how many seeds it takes to know anything of so many pairs."""
    return math.ceil(math.log2(2 * n_pairs / error_rate))  # all signs alike: 2 / 2**n


def describe_test(n_pairs: int) -> str:
    """Return how `verdicts` tests so many pairs."""
    pairs = "one pair" if n_pairs == 1 else f"{n_pairs} pairs at once"
    return f"exact signed-rank intervals, {1 - ERROR_RATE:.0%} for {pairs}"
