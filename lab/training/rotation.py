"""Turned axes: the optimizer sees φ where the net has its weights θ = Qφ.

Q is a random orthogonal matrix. The loss is the same function as before, of the same height and
slope everywhere; only the directions along which the axes lie are others. What treats each weight
for itself, as Adam does, depends on them. Gradient descent does not: with g the gradient by θ, that
by φ is Qᵀg, so its step in θ is Q·(-lr·Qᵀg) = -lr·g.

Maes et al., "Understanding Adam Requires Better Rotation Dependent Assumptions", arXiv:2410.19964.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from surfaces import Point, Surface
from tasks import Task

LARGEST = 1500  # weights that one matrix turns; it has as many rows and columns


class Turned(nn.Module):
    """A net whose parameters are φ. To compute its outputs, it is given θ = Qφ.

    One Q turns all weights. Of a net with more than `LARGEST`, each parameter tensor is turned by
    itself, in parts of at most so many elements.
    """

    def __init__(self, net: nn.Module, seed: int):
        super().__init__()
        self.net = net
        params = dict(net.named_parameters())
        self.names = [
            name
            for name, param in params.items()
            if param.requires_grad and param.is_floating_point()
        ]
        self.sizes = [params[name].numel() for name in self.names]
        whole = sum(self.sizes) <= LARGEST
        self.parts = [sum(self.sizes)] if whole else in_parts(self.sizes)
        like = params[self.names[0]] if self.names else torch.empty(0)
        self.axes = [random_rotation(size, seed).to(like) for size in self.parts]
        with torch.no_grad():  # φ = Qᵀθ: the net starts as the same function
            for name, phi in self.turned([q.T for q in self.axes]).items():
                params[name].copy_(phi)

    def turned(self, axes: list[Tensor]) -> dict[str, Tensor]:
        """Return the net's parameters by name, multiplied by the matrices."""
        params = dict(self.net.named_parameters())
        flat = torch.cat([params[name].flatten() for name in self.names])
        parts = zip(axes, flat.split(self.parts), strict=True)
        columns = torch.cat([q @ part for q, part in parts]).split(self.sizes)
        pairs = zip(self.names, columns, strict=True)
        return {name: column.view_as(params[name]) for name, column in pairs}

    def forward(self, x: Tensor) -> Any:
        return functional_call(self.net, self.turned(self.axes), (x,))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Turned":
        """Move the matrices, too, where the net is moved to a device."""
        super()._apply(fn, recurse)
        self.axes = [fn(q) for q in self.axes]
        return self


def in_parts(sizes: list[int]) -> list[int]:
    """Return the sizes, those above `LARGEST` as several."""
    return [min(LARGEST, size - k) for size in sizes for k in range(0, size, LARGEST)]


@cache
def random_rotation(size: int, seed: int) -> Tensor:
    """Return a random orthogonal matrix (size, size), any as likely as any other.

    Its generator is apart: torch's own, which first weights come from, is not touched. Mezzadri,
    "How to generate random matrices from the classical compact groups", math-ph/0609050.
    """
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))
    return q * r.diagonal().sign()


def turned_task(task: Task, seed: int) -> Task:
    """Return the task with nets whose axes are turned; the seed gives Q, the same for all nets."""
    return replace(task, make_net=partial(make_turned, task.make_net, seed))


def make_turned(make_net: Callable[[], nn.Module], seed: int) -> nn.Module:
    return Turned(make_net(), seed)


def turned_surface(surface: Surface) -> Surface:
    """Return the surface turned by 45 degrees, counterclockwise about (0, 0).

    Its window is made large enough for all that was in it.
    """
    cosine = math.sqrt(0.5)

    def turn(point: Point) -> Point:
        x, y = point
        return cosine * (x - y), cosine * (x + y)

    def formula(points: Tensor) -> Tensor:
        x, y = points.unbind(-1)
        return surface.formula(cosine * torch.stack([x + y, y - x], -1))

    corners = [turn((x, y)) for x in surface.window[0] for y in surface.window[1]]
    (left, right), (low, high) = ((min(ends), max(ends)) for ends in zip(*corners, strict=True))
    return surface._replace(
        formula=formula,
        window=((left, right), (low, high)),
        start=turn(surface.start),
        minima=tuple(turn(point) for point in surface.minima),
        saddle=surface.saddle and turn(surface.saddle),
    )
