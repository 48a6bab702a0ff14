"""Paths down a surface: what compare_paths.py compares."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from lab.outcome import Outcome, as_exceptions, describe
from lab.training.adapt import MakeOptimizer, depends_on_lr, make, needs_graph, set_mode
from lab.training.runs import MOVED_NOTHING
from lab.training.schedules import Schedule, schedulers_of

import torch
from torch import Tensor, nn

from surfaces import Point, Surface

Formula: TypeAlias = Callable[[Tensor], Tensor]  # of points (..., 2): values (...)
Window: TypeAlias = tuple[Point, Point]  # (lowest x, highest x), (lowest y, highest y)

LRS = [float(f"{10 ** (i / 8):.2g}") for i in range(-32, 9)]  # to tune: 0.0001 to 10, 8 a decade


@dataclass
class Descent(Outcome):
    """One optimizer's way down."""

    formula: Formula
    points: Tensor  # (steps at most + 1, 2), the start first
    lr: float | None = None  # as tuned; None if the optimizer's own was used
    steps: int = 0  # taken
    lr_history: list[float | None] = field(default_factory=list)  # the learning rate at each step

    @cached_property
    def path(self) -> Tensor:
        """The points that were reached (steps + 1, 2)."""
        return self.points[: self.steps + 1]

    @cached_property
    def losses(self) -> Tensor:
        """The losses there (steps + 1,); nan where the formula fails."""
        try:
            with as_exceptions():
                return self.formula(self.path)
        except Exception:  # which has ended the path
            return torch.cat([self.formula(self.path[:-1]), torch.tensor([math.nan])])

    @property
    def diverged_at(self) -> int | None:
        """The step after which the point or its loss was not finite; None if they always were."""
        return first_true(~(self.path.isfinite().all(1) & self.losses.isfinite()))

    @property
    def has_schedule(self) -> bool:
        """Whether its learning rate changed."""
        return len(set(self.lr_history)) > 1

    def take_steps(self, steps: Iterable[tuple[Tensor, list[float | None]]]) -> None:
        """Take down the steps of `descend` with one learning rate."""
        for points, lrs in steps:
            self.steps += 1
            self.points[self.steps] = points[0]
            self.lr_history.append(lrs[0])
        if not (self.path[1:] != self.path[0]).any():
            self.remarks.append(MOVED_NOTHING)


def vectorized(name: str, surface: Surface) -> Surface:
    """Return the surface with a formula of points (..., 2), whichever way it is written.

    That may also be f(x, y), or f(point) that unpacks its point. ValueError names the surface and
    what is wrong with its formula.
    """
    written: Callable[..., Any] = surface.formula
    ways: list[Formula] = [
        written,
        lambda points: written(points.unbind(-1)),
        lambda points: written(*points.unbind(-1)),
    ]
    start = torch.tensor(surface.start, dtype=torch.float64)
    points = (start + torch.tensor([[0.0, 0.0], [1e-3, 0.0], [0.0, 1e-3]])).requires_grad_()
    reasons = []
    for way in ways:
        try:
            with as_exceptions():
                values = way(points)
            if not (isinstance(values, Tensor) and values.shape == (3,)):
                raise ValueError("it has to return one value for each point, a tensor")
            (gradient,) = torch.autograd.grad(values.sum(), points)
        except Exception as error:
            reasons.append(describe(error))
            continue
        if not (values[0].isfinite() and gradient[0].isfinite().all()):
            raise ValueError(f"surface {name}: it is not finite at its start {surface.start}")
        surface = surface if way is written else surface._replace(formula=way)
        check_window(name, surface)
        return surface
    takes_two = False
    with suppress(TypeError, ValueError):  # a number, or a function that is not Python's
        takes_two = len(inspect.signature(written).parameters) == 2
    raise ValueError(
        f"surface {name}: its formula has to map points (..., 2), or x and y, to values by torch's "
        f"functions: {reasons[2 if takes_two else 0]}"
    )


def check_window(name: str, surface: Surface) -> None:
    """Refuse a surface that cannot be drawn."""
    try:
        with as_exceptions():
            *_, z = values_in(surface.window, surface)
    except Exception as error:
        raise ValueError(f"surface {name}: it fails in its window: {describe(error)}") from error
    finite = z[z.isfinite()]
    if not len(finite) or finite.min() == finite.max():
        raise ValueError(f"surface {name}: it is flat, or nowhere finite, in its window")


def first_true(condition: Tensor) -> int | None:
    """Return the first index at which `condition` holds, or None."""
    indices = condition.nonzero()
    return int(indices[0]) if len(indices) else None


def lowest(surface: Surface) -> float | None:
    """Return the value at the surface's minima, or None if it has none."""
    if not surface.minima:
        return None
    return surface.formula(torch.tensor(surface.minima[0], dtype=torch.float64)).item()


def window_around(surface: Surface, start: Point | None) -> Window:
    """Return the surface's window, made larger if `start` lies outside it."""
    if start is None:
        return surface.window
    x, y = (
        (min(low, value - 0.1 * (high - low)), max(high, value + 0.1 * (high - low)))
        if not low <= value <= high
        else (low, high)
        for (low, high), value in zip(surface.window, start, strict=True)
    )
    return x, y


def left_at(path: Tensor, window: Window) -> int | None:
    """Return the first step whose point lies outside the window, or None."""
    low, high = torch.tensor(window, dtype=path.dtype).T
    return first_true(((path < low) | (path > high)).any(1))


def values_in(window: Window, surface: Surface) -> tuple[Tensor, Tensor, Tensor]:
    """Return the coordinates x (201,) and y (201,) of a grid over the window, and z (201, 201).

    z is nan where it is not finite.
    """
    x, y = (torch.linspace(low, high, 201, dtype=torch.float64) for low, high in window)
    z = surface.formula(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1))
    return x, y, z.masked_fill(~z.isfinite(), math.nan)


def draw_noise(noise: float, steps: int, seed: int) -> Tensor:
    """Return what is added to the gradients (steps, 2)."""
    generator = torch.Generator().manual_seed(seed)
    return noise * torch.randn(steps, 2, generator=generator, dtype=torch.float64)


def descend(
    formula: Formula,
    start: Point,
    make_optimizer: MakeOptimizer,
    noise: Tensor,
    lrs: Sequence[float | None] = (None,),
) -> Iterator[tuple[Tensor, list[float | None]]]:
    """Descend a surface from `start` by its gradient plus one row of `noise` (steps, 2) a step.

    All n rates of `lrs` descend at once, each a param group whose one parameter is a row of the
    points; None is the optimizer's own lr. A schedule takes each step for an epoch.
    Yields after each step the points (n, 2), in float64, and the n rates that moved them; ends
    early when none of the points is finite any more.
    """
    params = [nn.Parameter(torch.tensor(start, dtype=torch.float64)) for _ in lrs]
    if len(lrs) == 1:
        optimizer = make(make_optimizer, params, lrs[0])
    else:
        groups = [{"params": [p], "lr": lr} for p, lr in zip(params, lrs, strict=True)]
        optimizer = make(make_optimizer, groups, lrs[0])
    set_mode(optimizer, "train")
    graph = needs_graph(make_optimizer)
    schedule = Schedule(schedulers_of(make_optimizer), optimizer, steps_per_epoch=1)
    for disturbance in noise:
        moved_by = [group.get("lr") for group in optimizer.param_groups]
        losses: list[Tensor] = []  # at each call of the closure

        def closure() -> Tensor:
            values = formula(torch.stack([*params]))
            losses.append(values.detach())
            grads = torch.autograd.grad(values.sum(), params, create_graph=graph)
            for param, grad in zip(params, grads, strict=True):
                param.grad = grad + disturbance
            return values.detach().sum()

        step: Callable[..., object] = optimizer.step
        step(closure)
        schedule.step(losses[0] if losses else math.nan)
        points = torch.stack([*params]).detach()
        yield points, moved_by
        if not points.isfinite().all(1).any():
            return


def paths_at(
    formula: Formula,
    start: Point,
    make_optimizer: MakeOptimizer,
    noise: Tensor,
    lrs: Sequence[float | None],
) -> Tensor:
    """Return the paths (steps + 1, rates, 2) of `descend`, NaN from where one ends early.

    All descend together, or one by one where the optimizer does not take that, or fails at a rate.
    """
    points = torch.full((len(noise) + 1, len(lrs), 2), math.nan, dtype=torch.float64)
    points[0] = torch.tensor(start, dtype=torch.float64)
    if len(lrs) > 1 and not depends_on_lr(make_optimizer, in_group=True):
        return one_by_one(formula, start, make_optimizer, noise, lrs)
    try:
        with as_exceptions():
            for step, (now, _) in enumerate(descend(formula, start, make_optimizer, noise, lrs), 1):
                points[step] = now
    except Exception:  # whatever an optimizer may raise
        if len(lrs) > 1:
            return one_by_one(formula, start, make_optimizer, noise, lrs)
    return points


def one_by_one(
    formula: Formula,
    start: Point,
    make_optimizer: MakeOptimizer,
    noise: Tensor,
    lrs: Sequence[float | None],
) -> Tensor:
    """Return the paths (steps + 1, rates, 2), each descended alone."""
    each = [paths_at(formula, start, make_optimizer, noise, [lr]) for lr in lrs]
    return torch.cat(each, dim=1)


def best_lr(surface: Surface, start: Point, make_optimizer: MakeOptimizer, noise: Tensor) -> float:
    """Return the lr of LRS with the lowest loss over the last tenth of the steps.

    Of those whose path stays in the window, if there are any: a tangle teaches nothing.
    """
    paths = paths_at(surface.formula, start, make_optimizer, noise, LRS)[1:]
    losses = surface.formula(paths[-max(1, len(noise) // 10) :]).mean(0)
    losses = losses.masked_fill(~losses.isfinite(), math.inf)
    low, high = torch.tensor(window_around(surface, start), dtype=paths.dtype).T
    inside = ((low <= paths) & (paths <= high)).all(2).all(0)
    if (losses[inside] < surface.formula(torch.tensor(start, dtype=torch.float64))).any():
        losses = losses.masked_fill(~inside, math.inf)
    return LRS[int(losses.argmin())]


def descents_at_each_lr(
    surface: Surface,
    optimizers: Mapping[str, MakeOptimizer],
    start: Point,
    noise: Tensor,
    seed: int,
    lrs: Sequence[float] = LRS,
) -> dict[float, dict[str, Descent]]:
    """Descend `surface` at each lr; return {lr: {label: Descent}}.

    An optimizer whose SPEC names its lr keeps it.
    """
    runs: dict[float, dict[str, Descent]] = {lr: {} for lr in lrs}
    for label, make_optimizer in optimizers.items():
        torch.manual_seed(seed)
        keeps_lr = getattr(make_optimizer, "has_own_lr", False)
        tried: list[float | None] = [None] if keeps_lr else list(lrs)
        paths = paths_at(surface.formula, start, make_optimizer, noise, tried)
        for k, lr in enumerate(lrs):
            points = paths[:, k % len(tried)]
            end = first_true(~points.isfinite().all(1))
            steps = len(noise) if end is None else end
            runs[lr][label] = Descent(surface.formula, points, steps=steps)
    return runs
