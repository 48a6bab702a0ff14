"""Worse, equal, or not known: what values of many seeds, paired, say, and how surely.

Of each two, or of each one beside the best, there is an interval for the factor between them that
is typical of a seed. All of these hold at once in 95 % of tables. So does what is read from them:

    equal       it lies within 10 %, from 1/1.1 to 1.1, whether 1 is in it or not
    worse       it lies above 1, and not within 10 %
    not known   else
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import NamedTuple

from lab.training.statistics import quartiles

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


class Shift(NamedTuple):
    """How far above another one typically is, and from where to where for sure."""

    typical: float
    low: float
    high: float
    is_bounded: bool = True  # on no seed it diverged where the other did not

    def above_zero(self) -> float:
        """Return how many times too long the interval is to lie above 0; 0 if it does."""
        if self.low > 0:
            return 0
        return (self.typical - self.low) / self.typical if 0 < self.typical < math.inf else math.inf

    def below(self, limit: float) -> float:
        """Return how many times too long the interval is to end at the limit; 0 if it does."""
        if not (self.is_bounded and self.typical <= limit):
            return math.inf
        if self.high <= limit:
            return 0
        above = limit - self.typical
        return (self.high - self.typical) / above if above else math.inf


class Compared(NamedTuple):
    """What is compared: logarithms, or the values themselves; and by how much equal ones differ."""

    values: dict[str, Tensor]  # (n,) each
    limit: float
    as_factors: bool

    def shifts(self, error_rate: float) -> dict[tuple[str, str], Shift]:
        """Return how far each is above each other; an interval is wrong at this rate."""
        found = {}
        for a, b in combinations(self.values, 2):
            difference = self.values[a] - self.values[b]  # nan where both diverged
            difference = difference.nan_to_num(0, math.inf, -math.inf)
            typical, low, high = shift(difference, error_rate)
            found[a, b] = Shift(typical, low, high, bool((difference < math.inf).all()))
            found[b, a] = Shift(
                0 - typical, 0 - high, 0 - low, bool((difference > -math.inf).all())
            )
        return found

    def verdict(self, shift: Shift, too_long: Mapping[str, float]) -> Verdict:
        """Return what a shift says: the first word for which it is 0 times too long."""
        word = next((word for word, times in too_long.items() if not times), "not known")
        least = min(too_long.values())  # an interval shrinks as the square root of the seeds grows
        n = len(next(iter(self.values.values())))
        seeds = math.ceil(n * least**2) if 0 < least < math.inf else None
        typical, low, high = map(exp, shift[:3]) if self.as_factors else shift[:3]
        return Verdict(word, typical, low, high, self.as_factors, seeds)


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
    (Bonferroni).
    """
    compared = compare(values, equal, as_factors)
    found = compared.shifts(error_rate / max(1, math.comb(len(values), 2)))
    result = {}
    for (a, b), shift in found.items():
        other = found[b, a]
        too_long = {
            "equal": max(shift.below(compared.limit), other.below(compared.limit)),
            "worse": shift.above_zero(),
            "better": other.above_zero(),
        }
        result[a, b] = compared.verdict(shift, too_long)
    return result


def beside_best(
    values: Mapping[str, Tensor], equal: float = EQUAL, error_rate: float = ERROR_RATE
) -> dict[str, Verdict]:
    """Return what is known of each label beside the best, whichever that is; as in `verdicts`.

    Only pairs with the one that is best can go wrong, so each of these has its share of the error
    rate. It is one of the rivals, those that are surely above no other. So what is said of a label
    has to hold beside each rival: of the one with the lowest median, too. `typical` is beside that.
    Hsu, "Constrained simultaneous confidence intervals for multiple comparisons with the best",
    Annals of Statistics 12, 1984.
    """
    compared = compare(values, equal)
    found = compared.shifts(error_rate / max(1, len(values) - 1))
    surely_above = {a for (a, _), shift in found.items() if shift.low > 0}
    rivals = [a for a in values if a not in surely_above] or list(values)  # or all, in a circle
    best = min(rivals, key=lambda a: quartiles(compared.values[a])[1].item(), default=None)
    result = {}
    for a in values:
        beside = [found[a, b] for b in rivals if b != a]
        shift = Shift(0, 0, 0) if best in (a, None) else found[a, best]
        low = 0 if a in rivals else max(0, min(each.low for each in beside))
        high = max([0, *(each.high for each in beside)])
        too_long = {
            "equal": max((each.below(compared.limit) for each in beside), default=0),
            "worse": shift.above_zero() if a in rivals else 0,
        }
        result[a] = compared.verdict(Shift(shift.typical, low, high), too_long)
    return result


def compare(values: Mapping[str, Tensor], equal: float, as_factors: bool = True) -> Compared:
    """Return what is compared of values (n,), by label: see `verdicts`."""
    each = {k: values.double().nan_to_num(math.inf, math.inf) for k, values in values.items()}
    if as_factors and all(bool((some > 0).all()) for some in each.values()):
        return Compared({k: some.log() for k, some in each.items()}, math.log1p(equal), True)
    smallest = min((float(some.abs().median()) for some in each.values()), default=0)
    return Compared(each, equal * smallest, False)


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


def seeds_needed(n_pairs: int, error_rate: float = ERROR_RATE) -> int:
    """Return how many seeds it takes to know anything of so many pairs."""
    return math.ceil(math.log2(2 * n_pairs / error_rate))  # all signs alike: 2 / 2**n


def describe_test(n_pairs: int) -> str:
    """Return how `verdicts` tests so many pairs."""
    pairs = "one pair" if n_pairs == 1 else f"{n_pairs} pairs at once"
    return f"exact signed-rank intervals, {1 - ERROR_RATE:.0%} for {pairs}"
