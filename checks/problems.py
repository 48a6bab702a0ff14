"""Little problems with one difficulty each, at six levels, whose answers are known.

After Schaul, Antonoglou and Silver, "Unit Tests for Stochastic Optimization", arXiv:1312.6055,
2013. A level is passed if at some learning rate the last tenth of STEPS gradients is near enough
to the answer: in the median of the seeds, and as a mean over those steps.

All levels and seeds of a problem are the rows of one tensor, where an optimizer couples nothing.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lab.outcome import Outcome, as_exceptions

import torch
from torch import Tensor
from torch.optim import Optimizer

from checks.maker import KINDS, Kind, Maker, needs_closure, quietly

STEPS, SEEDS, LEVELS = 100, 3, 6
RATES = [10 ** (k / 2) for k in range(-8, 3)]  # 0.0001 to 10
PATIENCE = 12.0  # seconds of a processor: what is not solved by then is left out


class Draw(NamedTuple):
    """What chance has drawn for a step: normal and uniform numbers, (rows, n) each."""

    normal: Tensor
    uniform: Tensor


@dataclass(frozen=True)
class Problem:
    """A difficulty in words, with h for its level; six levels; the start; the loss; the error.

    `loss(x, h, t, draw)` and `error(x, h, t)` take x (..., rows, n), the level h (rows,) and the
    step t, and return (..., rows). An error below 1 is near enough.
    """

    words: str
    levels: tuple[float, ...]
    start: Callable[[float], list[float]]
    loss: Callable[[Tensor, Tensor, int, Draw], Tensor]
    error: Callable[[Tensor, Tensor, int], Tensor]
    is_noisy: bool = False


def bowl(x: Tensor) -> Tensor:
    return x.square() / 2


def slope(x: Tensor) -> Tensor:
    """A bowl that goes on as a slope of 1: its gradient does not tell how far there is to go."""
    return (1 + x.square()).sqrt() - 1


def largest(size: float) -> Callable[[Tensor, Tensor, int], Tensor]:
    """Return the largest of all distances from 0, in units of `size`."""
    return lambda x, h, t: x.abs().amax(-1) / size


def turned(x: Tensor) -> Tensor:
    return torch.stack([x[..., 0] + x[..., 1], x[..., 0] - x[..., 1]], -1) / math.sqrt(2)


def valley(x: Tensor, h: Tensor) -> Tensor:
    """Return a bowl h times as steep along the first axis as along the second."""
    return bowl(x[..., 0]) + bowl(x[..., 1]) / h


def skewed(uniform: Tensor) -> Tensor:
    """Return -1, or 9 once in ten times: 0 as a mean, and of the wrong sign almost always."""
    return torch.where(uniform < 0.1, 9.0, -1.0)


def cauchy(uniform: Tensor) -> Tensor:
    return torch.tan(math.pi * (uniform - 0.5))


def target(t: int, h: Tensor) -> Tensor:
    return h * t


def gradients_lie(x: Tensor, noise: Tensor) -> Tensor:
    """Return a bowl whose gradient has this noise on it."""
    return (bowl(x) + noise * x).sum(-1)


PROBLEMS = {
    "valley": Problem(
        "h times as steep across as along",
        (3, 10, 30, 100, 300, 1000),
        lambda h: [1.0, 1.0],
        lambda x, h, t, draw: valley(x, h),
        largest(0.1),
    ),
    "turned valley": Problem(
        "the same, turned by 45 degrees",
        (3, 10, 30, 100, 300, 1000),
        lambda h: [math.sqrt(2), 0.0],
        lambda x, h, t, draw: valley(turned(x), h),
        lambda x, h, t: turned(x).abs().amax(-1) / 0.1,
    ),
    "curved valley": Problem(
        "(1 - x)² + h·(y - x²)²",
        (0.3, 1, 3, 10, 30, 100),
        lambda h: [-1.0, 1.0],
        lambda x, h, t, draw: (1 - x[..., 0]) ** 2 + h * (x[..., 1] - x[..., 0] ** 2) ** 2,
        lambda x, h, t: (1 - x[..., 0]).abs() / 0.3,
    ),
    "two scales": Problem(
        "one slope h times as steep as the other",
        (10, 100, 1e3, 1e4, 1e5, 1e6),
        lambda h: [3.0, 3.0],
        lambda x, h, t, draw: slope(x[..., 0]) + slope(x[..., 1]) / h,
        largest(0.3),
    ),
    "far away": Problem(
        "a bowl, started at a distance of h",
        (3, 30, 300, 3e3, 3e4, 3e5),
        lambda h: [h],
        lambda x, h, t, draw: bowl(x).sum(-1),
        largest(0.3),
    ),
    "saddle": Problem(
        "started so near to its ridge",
        (1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12),
        lambda h: [1.0, h],
        lambda x, h, t, draw: bowl(x[..., 0]) + 0.1 * (x[..., 1] ** 4 / 4 - x[..., 1].square() / 2),
        lambda x, h, t: torch.maximum(x[..., 0].abs(), (x[..., 1].abs() - 1).abs()) / 0.2,
    ),
    "plateau": Problem(
        "1 - exp(-x²/2), started at h",
        (1, 2, 3, 4, 5, 6),
        lambda h: [h],
        lambda x, h, t, draw: -torch.expm1(-bowl(x)).sum(-1),
        largest(0.2),
    ),
    "cliff": Problem(
        "a slope, started on a wall h times as steep",
        (10, 30, 100, 300, 1e3, 1e4),
        lambda h: [1.5],
        lambda x, h, t, draw: (slope(x) + h.unsqueeze(-1) * (x - 1).relu()).sum(-1),
        largest(0.2),
    ),
    "tiny gradients": Problem(
        "a slope of h",
        (1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12),
        lambda h: [3.0],
        lambda x, h, t, draw: h * slope(x).sum(-1),
        largest(0.3),
    ),
    "huge gradients": Problem(
        "a slope of h",
        (1e2, 1e4, 1e6, 1e8, 1e10, 1e12),
        lambda h: [3.0],
        lambda x, h, t, draw: h * slope(x).sum(-1),
        largest(0.3),
    ),
    "kink": Problem(
        "|x| + 3·|y|, to one part in h",
        (3, 10, 30, 100, 300, 1000),
        lambda h: [1.0, -0.7],
        lambda x, h, t, draw: x[..., 0].abs() + 3 * x[..., 1].abs(),
        lambda x, h, t: h * x.abs().amax(-1),
    ),
    "steep start": Problem(
        "x⁴/4, started at h",
        (1, 3, 10, 30, 100, 300),
        lambda h: [h],
        lambda x, h, t, draw: (x**4 / 4).sum(-1),
        largest(0.5),
    ),
    "ripples": Problem(
        "a bowl with waves, h high",
        (0.02, 0.05, 0.1, 0.2, 0.4, 0.8),
        lambda h: [5.0],
        lambda x, h, t, draw: (bowl(x) / 10 - h.unsqueeze(-1) * torch.cos(4 * x)).sum(-1),
        largest(0.4),
    ),
    "deep chain": Problem(
        "a product of eight weights to be 1, started at h",
        (0.9, 0.7, 0.5, 0.4, 0.3, 0.2),
        lambda h: [h * (1 + k / 100) for k in range(8)],
        lambda x, h, t, draw: bowl(x.prod(-1) - 1),
        lambda x, h, t: (x.prod(-1) - 1).abs() / 0.1,
    ),
    "noise": Problem(
        "on each gradient, h times as large as the way is long",
        (0.1, 0.3, 1, 2, 4, 8),
        lambda h: [1.0, 1.0, 1.0, 1.0],
        lambda x, h, t, draw: gradients_lie(x, h.unsqueeze(-1) * draw.normal),
        lambda x, h, t: x.square().mean(-1).sqrt() / 0.4,
        is_noisy=True,
    ),
    "heavy tails": Problem(
        "noise that is rarely, but then very large",
        (0.01, 0.03, 0.1, 0.3, 1, 3),
        lambda h: [1.0, 1.0, 1.0, 1.0],
        lambda x, h, t, draw: gradients_lie(x, h.unsqueeze(-1) * cauchy(draw.uniform)),
        lambda x, h, t: x.square().mean(-1).sqrt() / 0.4,
        is_noisy=True,
    ),
    "skewed noise": Problem(
        "nine of ten gradients have the wrong sign",
        (0.1, 0.3, 0.6, 1.2, 2.4, 4.8),
        lambda h: [1.0, 1.0, 1.0, 1.0],
        lambda x, h, t, draw: gradients_lie(x, h.unsqueeze(-1) * skewed(draw.uniform)),
        lambda x, h, t: x.square().mean(-1).sqrt() / 0.5,
        is_noisy=True,
    ),
    "rare gradients": Problem(
        "one slope shows once in h steps only",
        (1, 3, 6, 12, 20, 30),
        lambda h: [3.0, 3.0],
        lambda x, h, t, draw: slope(x[..., 0]) + (draw.uniform[:, 0] * h < 1) * slope(x[..., 1]),
        largest(0.4),
        is_noisy=True,
    ),
    "moving target": Problem(
        "a bowl that moves on by h each step",
        (0.01, 0.03, 0.1, 0.3, 1, 3),
        lambda h: [-1.0],
        lambda x, h, t, draw: bowl(x[..., 0] - target(t, h)),
        lambda x, h, t: (x[..., 0] - target(t, h)).abs() / 0.5,
    ),
    "new start": Problem(
        "one of two slopes is h times as steep, until its answer is another",
        (1, 3, 10, 30, 100, 300),
        lambda h: [3.0, 3.0],
        lambda x, h, t, draw: (
            slope(x[..., 0])
            + (h * slope(x[..., 1] + 3) if t < STEPS // 2 else slope(x[..., 1] - 3))
        ),
        lambda x, h, t: (x - torch.tensor([0.0, 3.0])).abs().amax(-1) / 0.4,
    ),
    "game": Problem(
        "two players go round each other, h times as fast as inwards",
        (0.3, 1, 2, 4, 8, 16),
        lambda h: [1.0, 1.0],
        lambda x, h, t, draw: (
            bowl(x).sum(-1) / h + x[..., 0] * x[..., 1].detach() - x[..., 1] * x[..., 0].detach()
        ),
        largest(0.1),
    ),
}


# ---------------------------------------------------------------- solving them


@dataclass
class Rows:
    """The levels and seeds of a problem, a row each, and what chance has drawn for them."""

    problem: Problem
    h: Tensor
    start: Tensor
    draws: list[Draw]

    def part(self, k: int) -> "Rows":
        one = slice(k, k + 1)
        draws = [Draw(draw.normal[one], draw.uniform[one]) for draw in self.draws]
        return Rows(self.problem, self.h[one], self.start[one], draws)

    def grads(self, x: Tensor, t: int) -> Tensor:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            loss = self.problem.loss(x, self.h, t, self.draws[t]).sum()
        return torch.autograd.grad(loss, x)[0]


def rows_of(problem: Problem, seeds: int, seed: int) -> Rows:
    """Return the rows of a problem: its levels, from each seed where it is noisy."""
    seeds = seeds if problem.is_noisy else 1
    h = torch.tensor(problem.levels, dtype=torch.float64).repeat_interleave(seeds)
    start = torch.tensor([problem.start(level) for level in h.tolist()])
    generator = torch.Generator().manual_seed(seed)
    size = (STEPS, seeds, start.shape[1])  # the same for each level
    normal, uniform = (draw(size, generator=generator) for draw in (torch.randn, torch.rand))
    draws = [
        Draw(one.repeat(LEVELS, 1), two.repeat(LEVELS, 1))
        for one, two in zip(normal, uniform, strict=True)
    ]
    return Rows(problem, h, start, draws)


@dataclass
class Team:
    """An optimizer with the parameters that it trains; together they are the rows of x."""

    optimizer: Optimizer
    params: list[Tensor]
    kind: Kind
    is_alive: bool = True

    def x(self) -> Tensor:
        if len(self.params) == 1 and self.params[0].ndim == 2 and self.kind is not KINDS[1]:
            return self.params[0].detach()
        return torch.stack([param.detach().flatten() for param in self.params])

    def step(self, grads: Tensor) -> None:
        """Take a step with these gradients; one that fails stays where it is, and is nan."""
        shares = grads.unsqueeze(0) if self.params[0].shape == grads.shape else grads
        for param, grad in zip(self.params, shares, strict=True):
            self.kind.give(param, grad.reshape(param.shape))
        self.run(self.optimizer.step)

    def run(self, step: Callable[[], Any]) -> None:
        try:
            with as_exceptions():
                if self.is_alive:
                    step()
        except Exception:  # at a rate that is too high, perhaps
            self.is_alive = False
            for param in self.params:
                param.data.fill_(math.nan)


@dataclass(frozen=True)
class Solver:
    """An optimizer, the kind of parameters it takes, and what it couples."""

    make: Maker
    kind: Kind
    elements: bool = False
    parameters: bool = False

    @property
    def rates(self) -> Sequence[float | None]:
        """The rates to be tried: one where it names its own or has none, fewer where it is slow."""
        has_rate = "lr" in self.make.hyperparameters and "lr" not in self.make.keywords
        if not has_rate:
            return [None]
        return RATES[::-2] if self.elements or self.parameters else RATES

    def team(self, start: Tensor, lr: float | None) -> Team:
        """Return a team for these rows: one parameter, or one for each row."""
        if self.elements or self.kind is KINDS[1]:
            shape = (-1, 1) if self.kind is KINDS[1] else (-1,)
            params: list[Tensor] = [torch.nn.Parameter(row.reshape(shape).clone()) for row in start]
        else:
            params = [torch.nn.Parameter(start.clone())]
        return Team(self.make(params, **({} if lr is None else {"lr": lr})), params, self.kind)


def errors(rows: Rows, solver: Solver, rates: Sequence[float | None]) -> Tensor:
    """Return how far from the answer each row ends at each rate, (rates, rows)."""
    torch.manual_seed(0)
    teams = [solver.team(rows.start, lr) for lr in rates]
    if needs_closure(teams[0].optimizer):
        return torch.stack([_with_closure(rows, team) for team in teams])
    late = []
    for t in range(STEPS):
        x = torch.stack([team.x() for team in teams])
        for team, grads in zip(teams, rows.grads(x, t), strict=True):
            team.step(grads)
        if t >= STEPS - STEPS // 10:
            x = torch.stack([team.x() for team in teams])
            late.append(rows.problem.error(x, rows.h, t))
    return torch.stack(late).mean(0).nan_to_num(math.inf)


def _with_closure(rows: Rows, team: Team) -> Tensor:
    """Return how far each row ends, after STEPS calls of the closure, of however many steps."""
    calls = 0

    def closure() -> Any:
        nonlocal calls
        t = min(calls, STEPS - 1)
        grads, x = rows.grads(team.x(), t), team.x()
        calls += 1
        shares = grads.unsqueeze(0) if team.params[0].shape == grads.shape else grads
        for param, grad in zip(team.params, shares, strict=True):
            team.kind.give(param, grad.reshape(param.shape))
        return rows.problem.loss(x, rows.h, t, rows.draws[t]).sum()

    late, before = [], -1
    while calls < STEPS and calls > before and team.is_alive:
        before = calls
        team.run(lambda: team.optimizer.step(closure))
        if calls >= STEPS - STEPS // 10:
            late.append(rows.problem.error(team.x(), rows.h, min(calls, STEPS) - 1))
    late = late or [rows.problem.error(team.x(), rows.h, STEPS - 1)]
    return torch.stack(late).mean(0).nan_to_num(math.inf)


def passed(problem: Problem, solver: Solver, seed: int = 0) -> int:
    """Return how many levels are passed, of the easiest on: 0 to 6."""
    with quietly():
        if solver.parameters:
            return _passed_one_by_one(rows_of(problem, 1, seed), solver)
        rows = rows_of(problem, 1 if solver.elements else SEEDS, seed)
        left = errors(rows, solver, solver.rates)
    median = left.unflatten(1, (LEVELS, -1)).median(-1).values
    levels = (median < 1).any(0).tolist()
    return levels.index(False) if False in levels else LEVELS


def _passed_one_by_one(rows: Rows, solver: Solver) -> int:
    """Return how many levels are passed where no two can be trained together."""
    for k in range(LEVELS):
        if not any(errors(rows.part(k), solver, [lr]).item() < 1 for lr in solver.rates):
            return k
    return LEVELS


@dataclass
class Solved(Outcome):
    """How many levels of a problem each optimizer has passed, by label; None where left out."""

    problem: Problem
    levels: dict[str, int | None] = field(default_factory=dict)


def solve(
    solvers: dict[str, Solver], seed: int = 0, patience: float = PATIENCE
) -> Iterator[tuple[str, Solved]]:
    """Solve each problem with each optimizer; yield (name, Solved)."""
    seconds = dict.fromkeys(solvers, 0.0)
    for name, problem in PROBLEMS.items():
        solved = Solved(problem)
        for label, solver in solvers.items():
            start = time.process_time()
            if seconds[label] < patience:
                solved.levels[label] = passed(problem, solver, seed)
            else:
                solved.levels[label] = None
            seconds[label] += time.process_time() - start
        yield name, solved
