"""What is told of nets beside their loss: the accuracy, where it is one, or a task's own metric."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from lab.outcome import as_exceptions

import torch
from torch import Tensor

from tasks import Loss, Task


@dataclass(frozen=True)
class Metric:
    """A number between a net's outputs and the targets: its name, and how it is written."""

    name: str
    format: str  # as ".1%"
    value: Callable[[Tensor, Tensor], float]
    chances: Callable[[Tensor], Tensor] | None = None  # of each class (samples, classes)


def metric_of(task: Task, outputs: object, targets: Tensor) -> Metric | None:
    """Return the task's own metric, or the accuracy if outputs and targets have one, or None.

    They are samples of both, not of the same rows. The loss says what they mean: it is an accuracy
    where a higher score for the true class, or a higher logit for 1, lowers the loss.
    """
    if task.metric is not None:
        own = task.metric
        name = getattr(own, "__name__", "metric").replace("_", " ").strip("<>")
        return Metric(name, ".4g", lambda outputs, targets: float(own(outputs, targets)))
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return None
    outputs = outputs.new_zeros(len(targets), *outputs.shape[1:])  # only their shape counts
    axis = axis_of_scores(task.loss, outputs, targets)
    if axis is not None:
        ignored = ignored_classes(task.loss, outputs, targets, axis)
        n_classes = outputs.shape[axis]

        def share_of_right(outputs: Tensor, targets: Tensor) -> float:
            counts = (targets >= 0) & (targets < n_classes) & ~torch.isin(targets, ignored)
            return (outputs.argmax(axis) == targets)[counts].double().mean().item()

        return Metric("accuracy", ".1%", share_of_right, lambda outputs: outputs.softmax(axis))
    threshold = threshold_of(task.loss, outputs, targets)
    if threshold is not None:
        return Metric(
            "accuracy",
            ".1%",
            lambda outputs, targets: ((outputs > threshold) == targets).double().mean().item(),
            lambda outputs: chances_of_two(outputs, threshold),
        )
    return None


def chances_of_two(outputs: Tensor, threshold: float) -> Tensor:
    """Return the chances (samples, 2) of 0 and 1, given logits, whose border is 0, or chances."""
    chance = (outputs.sigmoid() if threshold == 0 else outputs).reshape(len(outputs))
    return torch.stack([1 - chance, chance], 1)


def loss_or_none(loss: Loss, outputs: Tensor, targets: Tensor) -> float | None:
    """Return the loss of made-up outputs; None where it takes no such ones."""
    try:
        with as_exceptions():
            value = loss(outputs, targets).item()
    except Exception:  # as of probabilities that are not between 0 and 1
        return None
    return value if value == value else None


def axis_of_scores(loss: Loss, outputs: Tensor, targets: Tensor) -> int | None:
    """Return the axis of outputs that holds a score for each class, None if none does."""
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        return None
    found: dict[int, float] = {}  # the loss where each is sure, and right
    for axis in range(1, outputs.ndim):
        n_classes = outputs.shape[axis]
        shape = outputs.shape[:axis] + outputs.shape[axis + 1 :]
        if n_classes < 2 or shape != targets.shape or targets.max() >= n_classes:
            continue
        true = targets.clamp(min=0)
        flat = torch.zeros_like(outputs)
        right, above, below = (  # scores for the true class, the next one, the one before
            flat.scatter(axis, ((true + k) % n_classes).unsqueeze(axis), 1) for k in (0, 1, -1)
        )
        # The second is small: of labels that are smoothed, the best scores are nearly equal.
        for scale in (lambda scores: (5 * scores).log_softmax(axis), lambda scores: 0.1 * scores):
            best, middle, *others = (
                loss_or_none(loss, scale(scores), targets) for scores in (right, flat, above, below)
            )
            if best is not None and all(is_rising([best, middle, other]) for other in others):
                found.setdefault(axis, best)
    return min(found, key=lambda axis: found[axis], default=None)


def is_rising(losses: list[float | None]) -> bool:
    """Tell whether all are known, and each is above the one before."""
    known = [loss for loss in losses if loss is not None]
    return len(known) == len(losses) and all(a < b for a, b in pairwise(known))


def ignored_classes(loss: Loss, outputs: Tensor, targets: Tensor, axis: int) -> Tensor:
    """Return the classes that the loss leaves out, as `ignore_index`: their mean is of nothing."""
    ignored = [
        c
        for c in targets.unique().tolist()
        if 0 <= c < outputs.shape[axis]
        and loss_or_none(loss, torch.zeros_like(outputs), torch.full_like(targets, c)) is None
    ]
    return torch.tensor(ignored, dtype=targets.dtype, device=targets.device)


def threshold_of(loss: Loss, outputs: Tensor, targets: Tensor) -> float | None:
    """Return above which output a sample is a 1, None if outputs do not decide between 0 and 1."""
    if outputs.shape != targets.shape or targets.is_complex():
        return None
    values = targets.to(outputs.dtype)
    if values.unique().tolist() != [0, 1]:
        return None
    signs = 2 * values - 1
    logits = [loss_or_none(loss, k * signs, targets) for k in (10, 1, -10)]
    if None not in logits:
        return 0.0 if is_rising(logits) else None
    chances = [loss_or_none(loss, 0.5 + k * signs, targets) for k in (0.49, 0.1, -0.49)]
    return 0.5 if is_rising(chances) else None
