"""Functions of two variables to descend, an entry each. Add one, and every script can use it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Point = tuple[float, float]


class Surface(NamedTuple):
    """A function of (x, y), and what is needed to draw it and to descend it.

    `formula` maps points of shape (..., 2) to values of shape (...). All `minima` have the same
    value; a surface without minima has a `saddle`. `lr` is a learning rate at which all optimizers
    can be compared; None if each needs its own.
    """

    formula: Callable[[Tensor], Tensor]
    window: tuple[Point, Point]  # (lowest x, highest x), (lowest y, highest y)
    start: Point
    lesson: str
    source: str
    minima: tuple[Point, ...] = ()
    saddle: Point | None = None
    lr: float | None = None


def bowl(point: Tensor) -> Tensor:
    x, y = point.unbind(-1)
    return x**2 + 2 * y**2


def valley(point: Tensor) -> Tensor:
    x, y = point.unbind(-1)
    return 0.1 * x**2 + 2 * y**2


def rosenbrock(point: Tensor) -> Tensor:
    x, y = point.unbind(-1)
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def beale(point: Tensor) -> Tensor:
    x, y = point.unbind(-1)
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def himmelblau(point: Tensor) -> Tensor:
    x, y = point.unbind(-1)
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def rastrigin(point: Tensor) -> Tensor:
    return (10 + point**2 - 10 * (2 * torch.pi * point).cos()).sum(-1)


def saddle(point: Tensor) -> Tensor:
    x, y = point.unbind(-1)
    return x**2 - y**2


def plateau(point: Tensor) -> Tensor:
    return 1 - (-(point**2).sum(-1) / 2).exp()


SURFACES = {
    "bowl": Surface(
        bowl,
        window=((-5.5, 3), (-3, 2)),
        start=(-5, -2),
        lesson="Well conditioned: every method reaches the minimum, even plain gradient descent.",
        source="Zhang et al., Dive into Deep Learning, section 12.3",
        minima=((0, 0),),
        lr=0.2,
    ),
    "valley": Surface(
        valley,
        window=((-5.5, 3), (-3, 2)),
        start=(-5, -2),
        lesson="Twenty times steeper across than along: one learning rate cannot suit both.",
        source="Zhang et al., Dive into Deep Learning, section 12.6",
        minima=((0, 0),),
        lr=0.4,
    ),
    "rosenbrock": Surface(
        rosenbrock,
        window=((-2, 2), (-1, 3)),
        start=(-1.2, 1),
        lesson="A bent valley: its floor is found at once, but the way along it is long.",
        source="Rosenbrock, The Computer Journal 3, 1960",
        minima=((1, 1),),
    ),
    "beale": Surface(
        beale,
        window=((-4.5, 4.5), (-4.5, 4.5)),
        start=(0.5, 2),
        lesson="A flat middle between steep corners: steps that suit the one fail on the other.",
        source="Beale, On an iterative method for finding a local minimum, Princeton, 1958",
        minima=((3, 0.5),),
    ),
    "himmelblau": Surface(
        himmelblau,
        window=((-6, 6), (-6, 6)),
        start=(0, -1),
        lesson="Four equally good minima: the optimizer decides which one is found.",
        source="Himmelblau, Applied Nonlinear Programming, 1972",
        minima=(
            (3, 2),
            (-2.805118086952745, 3.131312518250573),
            (-3.779310253377747, -3.283185991286170),
            (3.584428340330492, -1.848126526964404),
        ),
    ),
    "rastrigin": Surface(
        rastrigin,
        window=((-5.12, 5.12), (-5.12, 5.12)),
        start=(-3.3, 2.7),
        lesson="A local minimum near every integer point: small steps end in the first one.",
        source="Rastrigin, Systems of Extremal Control, 1974; Mühlenbein et al., 1991",
        minima=((0, 0),),
    ),
    "saddle": Surface(
        saddle,
        window=((-2, 2), (-2, 2)),
        start=(-1.5, 0.01),
        lesson="Almost no slope along the way out: optimizers that rescale it leave first.",
        source="Dauphin et al., arXiv:1406.2572, on saddle points; this is the simplest one",
        saddle=(0, 0),
        lr=0.05,
    ),
    "plateau": Surface(
        plateau,
        window=((-4, 2), (-2, 3)),
        start=(-3, 1.5),
        lesson="Flat far from the minimum: a step in proportion to the gradient is tiny there.",
        source="an upside-down Gaussian, made for this repository",
        minima=((0, 0),),
        lr=0.1,
    ),
}
