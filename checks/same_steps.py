"""Walks on which two optimizers have to take the same steps, to nine digits.

On each, both get the same gradients: drawn ones, whatever they do, or those of a net's loss, where
they are.
"""

import inspect
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from checks.finding import Wrong, failure
from checks.maker import ALIKE, LR, Kind, Maker, kind_of, quietly, take_step

STEPS = 16
DIGITS = 1e-9

DIFFERS = (
    "Step {step} is the first to differ, {walk}{options}: an element of a parameter of shape "
    "{shape}, at {before:.10g}, under a gradient of {grad:.6g} and at lr={lr:.4g}, has to go to "
    "{right:.10g}, and goes to {mine:.10g}."
)
DEFAULT_DIFFERS = (
    "Its {name} is {mine} by default, and {right} in {other}: below, it has {right} in both."
)


@dataclass(frozen=True)
class Walk:
    """A walk of STEPS steps: what is unusual about it, in words and in numbers."""

    words: str
    keywords: dict[str, Any] = field(default_factory=dict)  # hyperparameters, beside the usual
    scale: float = 1.0  # of the gradients
    zeros: float = 0.0  # the share of them that are 0: whole parameters
    absent: float = 0.0  # the share of them that are None
    rates: tuple[float, ...] = (1.0,)  # what lr is multiplied by, again and again
    groups: dict[str, Any] | None = None  # the hyperparameters of a second param group
    is_net: bool = False

    @property
    def options(self) -> str:
        values = ", ".join(f"{key}={value}" for key, value in self.keywords.items())
        return f" {values}" if values else ""


class Step(NamedTuple):
    """Where all elements are after a step, in a row; the gradients they had; each one's lr."""

    theta: Tensor
    grads: Tensor
    lrs: list[float]


# ---------------------------------------------------------------- which walks

# Another value for each hyperparameter, and in whose company it shows.
OTHER_VALUES: dict[str, list[Any]] = {
    "adjust_lr_fn": ["match_rms_adamw"],
    "betas": [(0.7, 0.95)],
    "eps": [1e-2, (1e-3, 0.5)],
    "etas": [(0.4, 1.3)],
    "history_size": [2],
    "line_search_fn": ["strong_wolfe"],
    "max_eval": [4],
    "max_iter": [3],
    "momentum": [0.6],
    "ns_coefficients": [(3.0, -3.2, 1.2)],
    "ns_steps": [3],
    "step_sizes": [(1e-3, 0.05)],
    "t0": [3],
    "tolerance_change": [1e-2],
    "tolerance_grad": [1e-1],
}
COMPANY: dict[str, dict[str, Any]] = {
    "amsgrad": {"betas": (0.7, 0.8)},
    "dampening": {"momentum": 0.6},
    "decoupled_weight_decay": {"weight_decay": 0.1},
    "nesterov": {"momentum": 0.6},
}
NO_FORMULA = {"lr", "foreach", "fused", "capturable", "differentiable", "params"}
NOT_IN_GROUPS = {"initial_accumulator_value"}  # torch reads only the constructor's
COMBINATIONS = 8


def other_value(name: str, value: Any) -> Any:
    """Return another value for a hyperparameter, or None where none comes to mind."""
    for other in OTHER_VALUES.get(name, []):
        if isinstance(other, tuple) == isinstance(value, tuple) and other != value:
            return other
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return 0.7 * value if value else 0.1
    if isinstance(value, tuple) and all(isinstance(part, float) for part in value):
        return tuple(0.9 * part for part in value)
    return None


def walks_for(shared: dict[str, Any]) -> list[Walk]:
    """Return the walks for two classes that share these hyperparameters."""
    others = {name: other_value(name, value) for name, value in shared.items()}
    others = {key: value for key, value in others.items() if value is not None}
    in_groups = {key: value for key, value in others.items() if key not in NOT_IN_GROUPS}
    alone = [COMPANY.get(key, {}) | {key: value} for key, value in others.items()]
    alone = [{k: v for k, v in keywords.items() if k in shared} for keywords in alone]
    choice = random.Random(0)
    together = [
        {key: value for key, value in others.items() if choice.random() < 0.5}
        for _ in range(COMBINATIONS if len(others) > 1 else 0)
    ]
    return [
        Walk("on a plain walk"),
        Walk("where lr changes", rates=(1.0, 1.0, 0.5, 2.0, 0.1)),
        Walk("where gradients are missing", absent=0.3),
        Walk("where gradients are 0", zeros=0.5),
        Walk("where gradients are huge", scale=1e12),
        Walk("where gradients are tiny", scale=1e-8),
        Walk("where param groups differ", groups={}),
        Walk("where param groups differ", groups=in_groups),
        Walk("on a net's loss", is_net=True),
        *(Walk("with", keywords) for keywords in [*alone, *together] if keywords),
        *(Walk("on a net's loss with", k, is_net=True, absent=0.2) for k in together[:4] if k),
    ]


# ---------------------------------------------------------------- a walk


@cache
def drawn(shapes: tuple[tuple[int, ...], ...]) -> list[list[Tensor]]:
    """Return a gradient for each step and shape, of many sizes."""
    generator = torch.Generator().manual_seed(4)

    def draw(shape: tuple[int, ...]) -> Tensor:
        size = 10 ** (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1.5)
        return size * (0.3 + torch.randn(shape, generator=generator, dtype=torch.float64))

    return [[draw(shape) for shape in shapes] for _ in range(STEPS)]


def net_loss(params: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return the loss of a net with these weights; all others lie on parabolas."""
    hidden = torch.tanh(x @ params["w1"].T + params.get("b1", 0))
    y = hidden @ params["w2"].T + params.get("b2", 0)
    loss = (y - x.prod(1, keepdim=True)).square().mean()
    for name, param in params.items():
        if name[0] not in "wb" or name in ("w3", "block"):
            curvature = torch.arange(1, param.numel() + 1).reshape(param.shape)
            loss = loss + (curvature * (param - 0.5).square()).sum()
    return loss


def path_of(make: Maker, walk: Walk, kind: Kind) -> Iterator[Step]:
    """Take the steps of a walk; yield where each leads."""
    params, names = kind.draw(), list(kind.shapes)
    halves: Any = params
    if walk.groups is not None:
        rate = {"lr": 0.3 * make.keywords.get("lr", LR)} if "lr" in make.hyperparameters else {}
        halves = [{"params": params[::2]}, {"params": params[1::2]} | rate | walk.groups]
    optimizer = make(halves, **walk.keywords)
    usual = [group.get("lr", 0.0) for group in optimizer.param_groups]
    chance = random.Random(1)
    for step, grads in enumerate(drawn(tuple(kind.shapes.values()))):
        for group, lr in zip(optimizer.param_groups, usual, strict=True):
            if "lr" in group:
                group["lr"] = lr * walk.rates[step % len(walk.rates)]
        absent = [chance.random() < walk.absent for _ in params]
        empty = [chance.random() < walk.zeros or (step == 0 and walk.zeros > 0) for _ in params]

        def give_drawn() -> Tensor:
            for param, grad, is_absent, is_zero in zip(params, grads, absent, empty, strict=True):
                kind.give(param, walk.scale * (0 if is_zero else 1) * grad)
                if is_absent:
                    param.grad = None
            return torch.tensor(1.0, requires_grad=True)

        def give_nets() -> Tensor:
            x = torch.randn(8, 2, generator=torch.Generator().manual_seed(step // 5))
            loss = net_loss(dict(zip(names, params, strict=True)), x)
            grads = torch.autograd.grad(loss, params)
            for param, grad, is_absent in zip(params, grads, absent, strict=True):
                kind.give(param, grad)
                if is_absent:
                    param.grad = None
            return loss

        optimizer.zero_grad()
        closure = give_nets if walk.is_net and names[0] == "w1" else give_drawn
        take_step(optimizer, closure)
        group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        yield Step(
            torch.cat([param.detach().flatten() for param in params]).clone(),
            torch.cat([_dense(param).flatten() for param in params]),
            [float(group_of[id(param)].get("lr", 0.0)) for param in params],
        )


def _dense(param: Tensor) -> Tensor:
    if param.grad is None:
        return torch.zeros_like(param)
    return param.grad.to_dense() if param.grad.is_sparse else param.grad


def same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=DIGITS, atol=1e-3 * DIGITS, equal_nan=True)


def follows(path: Iterable[Step], thetas: list[Tensor]) -> bool:
    """Tell whether a path goes through these points; it is left where it does not."""
    return all(same(step.theta, theta) for theta, step in zip(thetas, path, strict=False))


# ---------------------------------------------------------------- two optimizers


@dataclass
class Comparison:
    """How an optimizer's walks compare with another's. `findings` are empty where it is alike."""

    other: Maker
    mine: Maker
    kind: Kind
    findings: list[Wrong] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)  # the hyperparameters that both have
    walks: list[Walk] = field(default_factory=list)  # all that were taken, by both
    thetas: list[list[Tensor]] = field(default_factory=list)  # where mine led, of each walk
    first: int | None = None  # the first walk that differs


def compare(mine: Maker, other: Maker) -> Comparison:
    """Compare the steps of two optimizers.

    A hyperparameter that either is made with goes to that one alone; of the others, those that
    both take by name are the same in both: lr is LR, all else as `other` has it by default.
    """
    with quietly():
        mine, other, findings = alike(mine, other)
        result = Comparison(other, mine, kind_of(other), findings)
        result.shared = _shared(mine, other)
        values = {name: other.hyperparameters[name] for name in result.shared}
        walks = walks_for({k: v for k, v in values.items() if k not in NO_FORMULA})
        if fails := first_failure(mine, result.kind):
            result.findings.append(fails)
            if first_failure(mine, ALIKE) or first_failure(other, ALIKE):
                return result
            result.kind = ALIKE  # with which it works, perhaps
        for walk in walks:
            try:
                right = list(path_of(other, walk, result.kind))
            except Exception:  # these values, or groups, are not for it
                continue
            _take(result, walk, right)
    return result


def _take(result: Comparison, walk: Walk, right: list[Step]) -> None:
    """Take a walk with mine; keep it, and the first finding of all walks."""
    taken: list[Step] = []
    finding = None
    try:
        for step in path_of(result.mine, walk, result.kind):
            taken.append(step)
    except Exception as error:
        finding = failure(error, walk.words, options=walk.options)
    for number, (one, two) in enumerate(zip(taken, right, strict=False)):
        if not same(one.theta, two.theta):
            finding = difference(number, taken, right, walk, result.kind)
            break
    if taken:
        result.walks.append(walk)
        result.thetas.append([step.theta for step in taken])
    if finding and result.first is None:
        result.first = len(result.thetas) - 1 if taken else None
        result.findings.append(finding)


def difference(number: int, mine: list[Step], right: list[Step], walk: Walk, kind: Kind) -> Wrong:
    """Return the finding that a step differs: its most different element, in numbers."""
    one, two = mine[number].theta, right[number].theta
    distance = (one - two).abs() / (two.abs() + 1e-3)
    k = int(distance.nan_to_num(torch.inf).argmax())
    sizes = [torch.Size(shape).numel() for shape in kind.shapes.values()]
    param = next(i for i in range(len(sizes)) if k < sum(sizes[: i + 1]))
    start = torch.cat([p.detach().flatten() for p in kind.draw()])
    before = right[number - 1].theta if number else start
    return Wrong(
        DIFFERS,
        step=number + 1,
        walk=walk.words,
        options=walk.options,
        shape=tuple(list(kind.shapes.values())[param]),
        before=before[k].item(),
        grad=right[number].grads[k].item(),
        lr=right[number].lrs[param],
        right=two[k].item(),
        mine=one[k].item(),
    )


def _shared(mine: Maker, other: Maker) -> list[str]:
    return [name for name in other.hyperparameters if name in mine.hyperparameters]


def alike(mine: Maker, other: Maker) -> tuple[Maker, Maker, list[Wrong]]:
    """Return both with the same values for what both take, and what differed by default."""
    findings = []
    lrs = [make.keywords["lr"] for make in (mine, other) if "lr" in make.keywords] or [LR]
    mine_has, other_has = mine.hyperparameters, other.hyperparameters
    for name in _shared(mine, other):
        value = other_has[name]
        if name == "lr":
            mine = mine.with_keywords(lr=mine.keywords.get("lr", lrs[0]))
            other = other.with_keywords(lr=other.keywords.get("lr", lrs[0]))
        elif name in mine.keywords or name in NO_FORMULA or mine_has[name] == value:
            continue
        elif mine_has[name] is not inspect.Parameter.empty:
            findings.append(
                Wrong(
                    DEFAULT_DIFFERS,
                    name=name,
                    mine=repr(mine_has[name]),
                    right=repr(value),
                    other=other.label,
                )
            )
            mine = mine.with_keywords(**{name: value})
        else:
            mine = mine.with_keywords(**{name: value})
    for make in (mine, other):
        if "lr" in make.hyperparameters and "lr" not in make.keywords:
            make.keywords["lr"] = lrs[0]
    return mine, other, findings


def first_failure(make: Callable[..., Any], kind: Kind) -> Wrong | None:
    """Return the finding that it cannot go a plain walk, None if it can."""
    try:
        list(path_of(make, Walk("on a plain walk"), kind))  # type: ignore[arg-type]
    except Exception as error:
        return failure(error)
    return None
