"""What many runs say together: quartiles, and steps to a target."""

import math
from collections.abc import Iterable

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
