"""The loss over a plane through the space of weights, along the paths beside it, and between ends.

A plane shows two directions of very many. So a path is not where it is drawn: it has a distance
from the plane, and losses of its own. Li et al., "Visualizing the loss landscape of neural nets",
arXiv:1712.09913.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

from lab.outcome import Outcome, Progress, ProgressOf, keeping, no_progress, show_none
from lab.training.adapt import MakeOptimizer
from lab.training.compiled import loss_of_one
from lab.training.datasets import holds_tensors, loader_of
from lab.training.evaluation import PART_BYTES, bytes_per_sample, loss_over
from lab.training.machine import keep_memory, threads_for_work
from lab.training.matching import chain_of, matched, reordered
from lab.training.runs import Training, state_of
from lab.training.trace import State, Trace, moments, trace
from lab.training.way import work_of

import torch
from torch import Tensor, nn
from torch.func import vmap

from tasks import Task

Losses: TypeAlias = Callable[[Tensor], Tensor]  # of nets at points of a plane (nets, 2): (nets,)
Window: TypeAlias = tuple[tuple[float, float], tuple[float, float]]  # of x, and of y

LOOKS = 100  # at the weights, in the course of a training
SIDE, LEAST_SIDE = 150, 25  # nets along each side of the plane
MAX_WORK = 5e11  # so many operations take some ten seconds: of larger nets there are fewer
SERVING = 1e6  # a loader serves a sample in the time of so many operations
CACHE_BYTES = 2**22  # the largest tensor of a part of the plane stays in the processor's cache
SHARES = torch.linspace(0, 1, 51, dtype=torch.float64)  # of the way from one end to another


def walk(
    task: Task,
    training: Training,
    make_optimizer: MakeOptimizer,
    progress: Progress = no_progress,
) -> Trace:
    """Train a net; return its weights after up to `LOOKS` of its steps, and their losses."""
    n_steps = task.epochs * len(loader_of(task, training.dataset))
    with threads_for_work(lambda: work_of(task, training)):
        run = trace(task, training, make_optimizer, moments(n_steps, LOOKS), progress)
        net = training.make_net(task)
        with keeping(run):
            for state in run.seen.values():
                run.losses.append(loss_of(task, net, training, state))
    return run


def loss_of(task: Task, net: nn.Module, training: Training, state: State) -> float:
    """Return the loss over the training set that a net has with these weights and buffers."""
    for name, tensor in state_of(net).items():
        tensor.copy_(state[name])
    return loss_over(task, net, training.dataset)


def n_weights_of(task: Task) -> int:
    """Count the weights of a task's net; ValueError where they span no plane."""
    params = [*task.make_net().parameters()]
    if any(param.is_complex() for param in params):
        raise ValueError("a plane needs real weights, and the net has complex ones")
    n_weights = sum(param.numel() for param in params)
    if n_weights < 2:
        raise ValueError("a plane needs two weights, and the net has one")
    return n_weights


# ---------------------------------------------------------------- weights as a point


def point_of(state: State) -> Tensor:
    """Return a net's weights, and after them what else it has of real numbers, as one vector."""
    return torch.cat([t.flatten().double() for t in state.values() if t.is_floating_point()])


def states_at(points: Tensor, like: State) -> State:
    """Return weights and buffers by name (nets, ...) of nets at these points (nets, numbers).

    In the types of those `like` them, where also stands what is no real number.
    """
    sizes = [t.numel() * t.is_floating_point() for t in like.values()]
    columns = zip(like.items(), points.split(sizes, 1), strict=True)
    return {
        name: column.reshape(-1, *t.shape).to(t.dtype)
        if t.is_floating_point()
        else t.expand(len(points), *t.shape)
        for (name, t), column in columns
    }


class Plane(NamedTuple):
    """The plane through three points, its corners, with two axes at right angles of length 1.

    x goes from the first corner to the second. Points may have numbers beside weights: buffers,
    which do not count for distances, and stay between those of the corners: a variance below zero
    is none.
    """

    corners: Tensor  # (3, numbers)
    axes: Tensor  # (2, weights)
    at: Tensor  # (3, 2): where the corners lie, at (0, 0), (x, 0) and (x, y)

    def project(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return where a point's foot lies in the plane (2,), and its distance from there."""
        way = (point - self.corners[0])[: self.axes.shape[1]]
        foot = self.axes @ way
        return foot, (way - foot @ self.axes).norm()

    def points_at(self, feet: Tensor) -> Tensor:
        """Return the points (n, numbers) of the plane there (n, 2): at a corner, itself."""
        (_, _), (x1, _), (x2, y2) = self.at
        x, y = feet.unbind(1)
        third = y / y2
        second = (x - third * x2) / x1
        shares = torch.stack([1 - second - third, second, third], 1)
        between = shares.clamp(min=0) / shares.clamp(min=0).sum(1, keepdim=True)
        weights, buffers = self.corners.tensor_split([self.axes.shape[1]], 1)
        return torch.cat([shares @ weights, between @ buffers], 1)


def plane_through(corners: Sequence[Tensor], n_weights: int) -> Plane:
    """Return the plane through three points; in place of one that gives no axis, a random point."""
    first, second, third = corners
    second, x_axis, x1 = axis_to(second, first, n_weights)
    third, y_axis, y2 = axis_to(third, first, n_weights, x_axis)
    x2 = x_axis @ (third - first)[:n_weights]
    zero = torch.zeros_like(x1)
    at = torch.stack([zero, zero, x1, zero, x2, y2]).reshape(3, 2)
    return Plane(torch.stack([first, second, third]), torch.stack([x_axis, y_axis]), at)


def axis_to(
    point: Tensor, origin: Tensor, n_weights: int, other: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a point, the axis that leads to it at a right angle to the other, and how far."""
    way = (point - origin)[:n_weights]
    across = way if other is None else way - (way @ other) * other
    if across.norm() > 1e-6 * way.norm():
        return point, across / across.norm(), across.norm()
    generator = torch.Generator().manual_seed(0 if other is None else 1)
    random = torch.randn(n_weights, generator=generator).to(point)
    point = origin.clone()
    point[:n_weights] += (way.norm() or 1) * random / random.norm()
    return axis_to(point, origin, n_weights, other)


# ---------------------------------------------------------------- paths beside a plane

# Names of corners. The others are labels, and stand for the ends of their paths.
START, BEND, RANDOM = "the start", "the bend of its path", "a random point"


@dataclass
class Path:
    """An optimizer's path beside a plane, after each of `steps`, as long as all was finite."""

    steps: Sequence[float]
    losses: Tensor  # (points,): the path's own, over the training set
    feet: Tensor  # (points, 2): below it, in the plane
    distances: Tensor  # (points,): from there
    losses_below: Tensor | None = None  # (points,): the plane's, at the feet
    lr: float | None = None
    diverged: bool = False


class Wall(NamedTuple):
    """Whether there is one between two nets: the straight line from the one to the other."""

    straight: Path
    matched: Path | None = None  # with the other's hidden units matched to those of the one
    reason: str = ""  # why there is none


@dataclass
class Landscape(Outcome):
    """A plane with the paths beside it and, once they have been computed, its losses."""

    task: Task
    training: Training
    plane: Plane
    corners: dict[str, State]  # by name; through those the plane goes that span one
    through: list[str]  # the names of the plane's own corners
    paths: dict[str, Path]
    x: Tensor | None = None  # (columns,)
    y: Tensor | None = None  # (rows,)
    heights: Tensor | None = None  # (rows, columns): losses over the training set
    wall: Wall | None = None

    @property
    def calm(self) -> dict[str, Path]:
        """The paths that have not diverged, or all if each has."""
        return {k: path for k, path in self.paths.items() if not path.diverged} or self.paths

    @property
    def ends(self) -> tuple[str, str]:
        """The two corners with the straight line between them: the last ends that are named."""
        *_, one, other = (name for name in self.corners if name != BEND)
        return one, other

    def rows(self) -> Iterator[tuple[str | float | None, ...]]:
        """Yield each point of each path: label, step, x, y, distance, loss, the plane's loss below.

        So do the straight lines between the ends, with the share of the way in place of a step.
        """
        one, other = self.ends
        every = dict(self.paths)
        if self.wall:
            every[f"{one} to {other}"] = self.wall.straight
            if self.wall.matched:
                every[f"{one} to {other}, matched"] = self.wall.matched
        for label, path in every.items():
            columns = [*path.feet.T, path.distances, path.losses, path.losses_below]
            lists = ([None] * len(path.steps) if c is None else c.tolist() for c in columns)
            for row in zip(path.steps, *lists, strict=True):
                yield label, *row

    @property
    def window(self) -> Window:
        """What is seen of the plane: the corners and the paths, as far as one is near to those."""
        low, high = self.plane.at.aminmax(dim=0)
        feet = torch.cat([path.feet for path in self.paths.values()])
        size = high - low
        feet = feet.clamp(low - size, high + size)
        low, high = feet.aminmax(dim=0)
        room = 0.08 * (high - low)
        (left, bottom), (right, top) = (low - room).tolist(), (high + room).tolist()
        return (left, right), (bottom, top)


def landscape(runs: Mapping[str, Trace], through: Sequence[str] = ()) -> Landscape:
    """Return the plane through the start and the ends of two runs, or through three ends.

    By default it is the first and the last run that have not diverged; one that has ends where all
    was finite. With one run, the third corner is its bend: the point of its path that lies farthest
    from the line between start and end.
    """
    first = next(iter(runs.values()))
    task, training = first.task, first.training
    calm = [label for label, run in runs.items() if run.diverged_at is None] or [*runs]
    through = [label for label in through if label in runs] or [calm[0], calm[-1]]
    seen = {label: finite_part(run) for label, run in runs.items()}
    corners = {label: [*seen[label].values()][-1] for label in through}
    if len(corners) < 3:
        corners = {START: first.seen[0], **corners}
    n_weights = n_weights_of(task)
    if len(corners) == 2:
        start, end = map(point_of, corners.values())
        line = plane_through([start, end, start], n_weights)

        def distance_from_line(state: State) -> float:
            (_, y), distance = line.project(point_of(state))
            return math.hypot(y, distance)

        corners[BEND] = max(seen[through[0]].values(), key=distance_from_line)
    points = {name: point_of(state) for name, state in corners.items()}
    plane = plane_through([*points.values()], n_weights)
    own = zip(points.items(), plane.corners, strict=True)
    named = [name if torch.equal(point, corner) else RANDOM for (name, point), corner in own]
    paths = {}
    for label, run in runs.items():
        steps = [*seen[label]]
        places = [plane.project(point_of(state)) for state in seen[label].values()]
        losses = torch.tensor((run.losses or [math.nan])[: len(steps)], dtype=torch.float64)
        feet, distances = map(torch.stack, zip(*places, strict=True))
        diverged = run.diverged_at is not None
        paths[label] = Path(steps, losses, feet, distances, lr=run.lr, diverged=diverged)
    return Landscape(task, training, plane, corners, named, paths)


def finite_part(run: Trace) -> dict[int, State]:
    """Return the start of a run, and its states by the number of steps up to one not finite."""
    part = {0: run.seen[0]}
    for (step, state), loss in zip(run.seen.items(), run.losses, strict=False):
        if not (math.isfinite(loss) and point_of(state).isfinite().all()):
            break
        part[step] = state
    return part


# ---------------------------------------------------------------- the losses of a plane


def survey(scene: Landscape, progress: ProgressOf = show_none) -> Iterator[tuple[str, Landscape]]:
    """Compute the plane's losses, and those on the straight line between two of its corners.

    Yield the landscape as it has the one, and as it has the other.
    """
    keep_memory()
    task, training, plane = scene.task, scene.training, scene.plane
    alone = one_by_one(task, training, plane, plane.at)
    losses_at = quickest(task, training, plane, alone)
    side = side_for(task, training)
    x, y = (nodes(*w, side, at) for w, at in zip(scene.window, plane.at.T, strict=True))
    parts = torch.cartesian_prod(y, x).flip(1).split(side)
    losses = [losses_at(part) for part in progress("plane")(parts, len(parts), "row")]
    heights = torch.cat(losses).reshape(len(y), len(x))
    for corner, loss in zip(plane.at, alone, strict=True):
        heights[y == corner[1], x == corner[0]] = loss  # to the last bit
    for path in scene.paths.values():
        path.losses_below = losses_at(path.feet)
    scene.x, scene.y, scene.heights = x, y, heights
    yield "plane", scene
    scene.wall = wall_of(scene, progress("straight line"))
    yield "straight line", scene


def side_for(task: Task, training: Training) -> int:
    """Return how many nets the plane has along each side: fewer of those that take longer."""
    n_samples = len(training.dataset)
    work = work_of(task, training) * n_samples / min(task.batch_size, n_samples)
    if not holds_tensors(task, training.dataset):
        work += SERVING * n_samples
    side = int(math.sqrt(MAX_WORK / max(1.0, work)))
    return max(LEAST_SIDE, min(SIDE, side))


def nodes(low: float, high: float, count: int, corners: Tensor) -> Tensor:
    """Return so many places on an axis, evenly spread, and the corners' own among them."""
    own = corners.unique()
    even = torch.linspace(low, high, count - len(own), dtype=own.dtype)
    return torch.cat([even, own]).unique()


def one_by_one(task: Task, training: Training, plane: Plane, feet: Tensor) -> Tensor:
    """Return the losses (n,) of the nets at points of the plane (n, 2), each computed alone."""
    net = training.make_net(task)
    losses = []
    for point in plane.points_at(feet).split(1):
        states = states_at(point, state_of(net))
        state = {name: value[0] for name, value in states.items()}
        losses.append(loss_of(task, net, training, state))
    return torch.tensor(losses, dtype=torch.float64)


def quickest(task: Task, training: Training, plane: Plane, alone: Tensor) -> Losses:
    """Return what computes the losses (n,) of the nets at points of the plane (n, 2).

    It is a stack, if that has for the corners the losses which these nets have `alone`, to
    rounding; or else one net after the other.
    """
    in_turn = partial(one_by_one, task, training, plane)
    if not holds_tensors(task, training.dataset):
        return in_turn
    x, y = training.dataset.tensors
    net = training.make_net(task).eval()
    like = state_of(net)
    n_bytes = len(x) * bytes_per_sample(net, x[: task.batch_size])
    if n_bytes > PART_BYTES:
        return in_turn
    at_once = max(1, int(CACHE_BYTES / max(n_bytes, 8 * plane.corners.shape[1])))
    of_each = vmap(lambda state: loss_of_one(net, task.loss, state, {}, x, y))

    @torch.no_grad()
    def as_stack(feet: Tensor) -> Tensor:
        parts = (states_at(plane.points_at(part), like) for part in feet.split(at_once))
        return torch.cat([of_each(states) for states in parts]).double()

    try:
        is_the_same = torch.allclose(as_stack(plane.at), alone, rtol=1e-4, atol=1e-6)
    except Exception:  # whatever vmap may raise
        is_the_same = False
    return as_stack if is_the_same else in_turn


# ---------------------------------------------------------------- is there a wall?


def wall_of(scene: Landscape, progress: Progress = no_progress) -> Wall:
    """Return the straight line between two ends, and the one to the other's units as matched."""
    task, training = scene.task, scene.training
    one, other = (scene.corners[name] for name in scene.ends)
    net = training.make_net(task)
    straight = line_to(scene, one, other, net, progress)
    try:
        layers = chain_of(net)
        backwards = [range(len(other[f"{name}.weight"]))[::-1] for name in layers[:-1]]
        turned = loss_of(task, net, training, reordered(other, layers, backwards))
        if not math.isclose(straight.losses[-1], turned, rel_tol=1e-4, abs_tol=1e-6):
            raise ValueError("the net's hidden units cannot change places")
    except ValueError as error:
        return Wall(straight, reason=str(error))
    return Wall(straight, line_to(scene, one, matched(layers, other, to=one), net, progress))


def line_to(scene: Landscape, one: State, other: State, net: nn.Module, progress: Progress) -> Path:
    """Return the straight line from one net to another, as a path: its steps are `SHARES`."""
    ends = torch.stack([point_of(one), point_of(other)])
    losses, feet, distances = [], [], []
    for share in progress(SHARES, len(SHARES), "net"):
        point = torch.stack([1 - share, share]) @ ends
        states = states_at(point.unsqueeze(0), one)
        state = {name: value[0] for name, value in states.items()}
        losses.append(loss_of(scene.task, net, scene.training, state))
        foot, distance = scene.plane.project(point)
        feet.append(foot)
        distances.append(distance)
    own = torch.tensor(losses, dtype=torch.float64)
    return Path(SHARES.tolist(), own, torch.stack(feet), torch.stack(distances))


def rise(losses: Tensor) -> tuple[float, float]:
    """Return how far the losses rise above the line between both ends', and at which share.

    Frankle et al., "Linear mode connectivity and the lottery ticket hypothesis", arXiv:1912.05671.
    """
    above = losses - (losses[0] + SHARES * (losses[-1] - losses[0]))
    above = above.nan_to_num(math.inf).clamp(min=0)
    highest = int(above.argmax())
    return above[highest].item(), SHARES[highest].item()
