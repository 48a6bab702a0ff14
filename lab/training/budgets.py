"""What the best of k trials is worth, which hyperparameter mattered, and what to try first.

Losses are (trials, seeds), held out. An engineer trains each of k settings once, takes the best,
and trains that again. So one seed chooses and the others judge; each seed chooses in turn.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

BINS = 8  # of one dimension, to find out how much it matters


def best_of(losses: Tensor) -> Tensor:
    """Return the expected loss (n,) of the best of k trials, for k = 1 to n.

    It is exact: the mean over all orders in which the n trials can be drawn, and over the seeds
    that choose. Dodge et al., "Show your work", arXiv:1909.03004, for draws without replacement.
    """
    ranked = [by_rank(*split) for split in splits(losses)]
    return chances(len(losses)) @ torch.stack(ranked).mean(0)


def quantiles_of_best(losses: Tensor, shares: Sequence[float]) -> Tensor:
    """Return what the best of k trials is below in such shares of all orders: (shares, n).

    The orders are those of all choosing seeds together.
    """
    judged = torch.cat([by_rank(*split) for split in splits(losses)])
    order = judged.argsort()
    weights = chances(len(losses)).repeat(1, len(judged) // len(losses))[:, order]
    reached = weights.cumsum(1) / weights.sum(1, keepdim=True)
    wanted = torch.tensor(shares, dtype=torch.float64).repeat(len(losses), 1)
    return judged[order][torch.searchsorted(reached, wanted - 1e-12)].T


def splits(losses: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield, for each seed, the losses (trials,) by which it chooses, and the others' mean."""
    n_seeds = losses.shape[1]
    if n_seeds == 1:  # it has to do both
        yield losses[:, 0], losses[:, 0]
        return
    for seed in range(n_seeds):
        others = [k for k in range(n_seeds) if k != seed]
        yield losses[:, seed], losses[:, others].mean(1)


def by_rank(chosen: Tensor, judged: Tensor) -> Tensor:
    """Return the judged losses of the best choice, the second best, and so on.

    Among equal ones chance decides: each place among them has their mean.
    """
    _, group = chosen.unique(return_inverse=True)
    sums = torch.zeros(int(group.max()) + 1, dtype=judged.dtype).index_add(0, group, judged)
    means = sums / group.bincount()
    return means[group.sort().values]


@cache
def chances(n: int) -> Tensor:
    """Return the chance (n, n) that the best of k of n trials is the one of each rank.

    It is among the k, and the others are among those that rank below it: binomial(n - 1 - rank,
    k - 1) of binomial(n, k), here from one rank to the next.
    """
    k = torch.arange(1, n + 1, dtype=torch.float64).unsqueeze(1)
    rank = torch.arange(n - 1, dtype=torch.float64)
    return torch.cat([k / n, (n - rank - k) / (n - 1 - rank)], 1).cumprod(1)


def chosen_of(losses: Tensor) -> float:
    """Return the expected loss of the best of all these trials."""
    return best_of(losses)[-1].item()


# ---------------------------------------------------------------- which hyperparameter mattered


def main_effect(values: Tensor, places: Tensor, bins: int = BINS) -> float:
    """Return the share of the variance of values (n,) that one dimension alone explains.

    It is the first-order Sobol index, a main effect of the functional ANOVA: the variance of the
    mean given the dimension, over the whole variance. The n places in that dimension, ranked, fall
    into bins of equal size; the share that chance alone would explain is taken off (Kelley's
    epsilon squared). Sobol, "Global sensitivity indices for nonlinear mathematical models",
    Mathematics and Computers in Simulation 55, 2001; Hutter et al., "An efficient approach for
    assessing hyperparameter importance", ICML 2014; Kelley, "An unbiased correlation ratio
    measure", PNAS 21, 1935.
    """
    n = len(values)
    bins = min(bins, n // 2)
    if bins < 2 or not values.var() > 0:
        return 0.0
    groups = values[places.argsort()].tensor_split(bins)
    within = sum(((group - group.mean()) ** 2).sum() for group in groups) / (n - bins)
    return max(0.0, 1 - float(within / values.var()))


def best_end(values: Tensor, places: Tensor) -> int:
    """Return 0 or 1 where the best of the values (n,) lie at that end of a dimension, else -1.

    The best tenth of them does: its median place is in the outer tenth.
    """
    best = values.argsort()[: max(1, round(len(values) / 10))]
    middle = places[best].quantile(0.5)
    return 0 if middle < 0.1 else 1 if middle > 0.9 else -1


# ---------------------------------------------------------------- a list to try


def list_to_try(logs: Tensor, size: int) -> list[int]:
    """Return so many trials to try, in order, given the logarithms of losses (tasks, trials).

    Each is the one that, beside those before it, makes the mean over tasks of the lowest the least.
    Metz et al., "Using a thousand optimization tasks to learn hyperparameter search strategies"
    (TaskSet), arXiv:2002.11887.
    """
    chosen: list[int] = []
    lowest = torch.full((len(logs), 1), math.inf, dtype=logs.dtype)
    for _ in range(min(size, logs.shape[1])):
        means = logs.minimum(lowest).mean(0)
        means[chosen] = math.inf
        chosen.append(int(means.argmin()))
        lowest = lowest.minimum(logs[:, chosen[-1:]])
    return chosen


def left_out(losses: Sequence[Tensor], size: int) -> list[float]:
    """Return the loss on each task of the best of a list that was made on all others.

    `losses` are (trials, seeds) of each task.
    """
    logs = torch.stack([each.mean(1).log() for each in losses])
    ends = []
    for k, own in enumerate(losses):
        others = [other for other in range(len(losses)) if other != k]
        ends.append(chosen_of(own[list_to_try(logs[others], size)]))
    return ends
