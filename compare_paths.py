"""What path does each optimizer take down a surface? Descend from one start and draw them all.

The gradients are exact or, with --noise, stochastic, with the same draws for every optimizer.
"""

import math
from argparse import Namespace
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from lab.commands import (
    Parser,
    animation_path,
    finite_float,
    non_negative_float,
    one_of,
    positive_float,
    positive_int,
)
from lab.paths import (
    Descent,
    Window,
    animate,
    animate_rates,
    draw,
    draw_gallery,
    first,
    left_at,
    lowest,
    values_in,
    window_around,
)
from lab.report import Report, keeping, run_main
from lab.schedules import Schedule, schedulers_of
from lab.specs import Spec, parse_optimizer, parse_optimizers, try_optimizers
from lab.trainings import silent

import torch
from matplotlib.animation import FuncAnimation
from torch import Tensor
from torch.optim import Optimizer

from settings import SEED
from surfaces import SURFACES, Point, Surface

SURFACE = "valley"
OPTIMIZERS = [
    "SGD=optimizers.SGD",
    "Momentum 0.5=optimizers.SGD(momentum=0.5)",
    "Adagrad=optimizers.Adagrad",
    "RMSprop=optimizers.RMSprop(alpha=0.9)",
    "Adam=optimizers.Adam(betas=(0.9, 0.99))",
]
STEPS = 50
NOISE = 0.0
TARGET = 0.01
RATES = [float(f"{10 ** (i / 8):.2g}") for i in range(-32, 9)]  # 0.0001 to 10, 8 a decade

EXAMPLES = """\
  python compare_paths.py --noise 1 --optimizers SGD Momentum --lr 0.1
  python compare_paths.py --surface rosenbrock --tune --steps 200 --animate race.gif
  python compare_paths.py --animate-rates rates.html
  python compare_paths.py --surface all"""

CSV_HEADER = ("optimizer", "step", "x", "y", "loss")


def compare(
    surface: Surface,
    optimizers: dict[str, Callable[..., Optimizer]] | None = None,
    start: Point | None = None,
    steps: int = STEPS,
    noise: float = NOISE,
    seed: int = SEED,
    tune: Collection[str] = (),
    progress: Callable = silent,
) -> Iterator[tuple[str, Descent]]:
    """Descend `surface` once per optimizer; yield (label, Descent) as each arrives.

    `optimizers` maps a label to whatever makes the optimizer from param groups; this script's five
    by default, at the surface's own learning rate. `noise` is the standard deviation of what is
    added to each element of the gradient. Those labelled in `tune` get their own best rate, and so
    do the five where the surface has no rate of its own.
    """
    if optimizers is None:
        optimizers = parse_optimizers(OPTIMIZERS, surface.lr)
        tune = tune if surface.lr else optimizers
    start, draws = start or surface.start, draw_noise(noise, steps, seed)
    for label, make_optimizer in optimizers.items():
        torch.manual_seed(seed)
        run = Descent(surface.formula, torch.tensor([start] * (steps + 1), dtype=torch.float64))
        with keeping(run):
            if label in tune:
                run.lr = best_lr(surface, start, make_optimizer, draws)
            path = descend(surface.formula, start, make_optimizer, draws, [run.lr])
            for points, rates in progress(label)(path, steps):
                run.steps += 1
                run.points[run.steps] = points[0]
                run.rates.append(rates[0])
        yield label, run


def compare_rates(
    surface: Surface,
    optimizers: dict[str, Spec],
    start: Point | None = None,
    steps: int = STEPS,
    noise: float = NOISE,
    seed: int = SEED,
    lrs: Sequence[float] = RATES,
) -> dict[float, dict[str, Descent]]:
    """Descend `surface` at each rate; return {rate: {label: Descent}}.

    An optimizer whose SPEC names a rate keeps it.
    """
    start, draws = start or surface.start, draw_noise(noise, steps, seed)
    runs = {lr: {} for lr in lrs}
    for label, spec in optimizers.items():
        torch.manual_seed(seed)
        own = [None] if spec.has_own_rate else list(lrs)
        paths = paths_at(surface.formula, start, spec, draws, own)
        for k, lr in enumerate(lrs):
            points = paths[:, k % len(own)]
            end = first(~points.isfinite().all(1))
            runs[lr][label] = Descent(surface.formula, points, steps=steps if end is None else end)
    return runs


def draw_noise(noise: float, steps: int, seed: int) -> Tensor:
    """Return what is added to the gradients (steps, 2)."""
    generator = torch.Generator().manual_seed(seed)
    return noise * torch.randn(steps, 2, generator=generator, dtype=torch.float64)


def descend(
    formula: Callable[[Tensor], Tensor],
    start: Point,
    make_optimizer: Callable[..., Optimizer],
    noise: Tensor,
    lrs: Sequence[float | None] = (None,),
) -> Iterator[tuple[Tensor, list[float | None]]]:
    """Descend a surface from `start` by its gradient plus one row of `noise` a step.

    `formula` maps points (n, 2) to values (n,), and `noise` (steps, 2) may be zeros. All n
    rates of `lrs` descend at once, each a param group whose one parameter is a row of the points;
    None is the optimizer's own rate. A schedule takes each step for an epoch.
    Yields after each step the points (n, 2), in float64, and the n rates that moved them; ends
    early when none of the points is finite any more.
    """
    groups = [{} if lr is None else {"lr": lr} for lr in lrs]
    points = torch.tensor([start] * len(groups), dtype=torch.float64)
    rows = points.unbind()
    optimizer = make_optimizer(
        [{"params": [row]} | group for row, group in zip(rows, groups, strict=True)]
    )
    schedule = Schedule(schedulers_of(make_optimizer), optimizer, steps_per_epoch=1)

    def closure() -> Tensor:
        nonlocal losses
        leaf = points.clone().requires_grad_()
        values = formula(leaf)
        losses = values.detach() if losses is None else losses
        for row, grad in zip(rows, *torch.autograd.grad(values.sum(), leaf), strict=True):
            row.grad = grad + disturbance
        return values.detach().sum()

    for disturbance in noise:  # noqa: B007 (the closure reads it)
        losses, rates = None, [group.get("lr") for group in optimizer.param_groups]
        optimizer.step(closure)
        schedule.step(losses)
        yield points.clone(), rates
        if not points.isfinite().all(1).any():
            return


def paths_at(
    formula: Callable[[Tensor], Tensor],
    start: Point,
    make_optimizer: Callable[..., Optimizer],
    noise: Tensor,
    lrs: Sequence[float | None],
) -> Tensor:
    """Return the paths (steps + 1, rates, 2) of `descend`, NaN from where one ends early.

    All descend together, or one by one where the optimizer does not take that, or fails at a rate.
    """

    points = torch.full((len(noise) + 1, len(lrs), 2), math.nan, dtype=torch.float64)
    points[0] = torch.tensor(start, dtype=torch.float64)
    try:
        for step, (now, _) in enumerate(descend(formula, start, make_optimizer, noise, lrs), 1):
            points[step] = now
    except Exception:  # whatever an optimizer may raise
        if len(lrs) > 1:
            each = [paths_at(formula, start, make_optimizer, noise, [lr]) for lr in lrs]
            return torch.cat(each, dim=1)
    return points


def best_lr(
    surface: Surface, start: Point, make_optimizer: Callable[..., Optimizer], noise: Tensor
) -> float:
    """Return the rate of RATES with the lowest loss over the last tenth of the steps.

    Of those whose path stays in the window, if there are any: a tangle teaches nothing.
    """
    paths = paths_at(surface.formula, start, make_optimizer, noise, RATES)[1:]
    losses = surface.formula(paths[-max(1, len(noise) // 10) :]).mean(0)
    losses = losses.masked_fill(~losses.isfinite(), math.inf)
    low, high = torch.tensor(window_around(surface, start), dtype=paths.dtype).T
    inside = ((low <= paths) & (paths <= high)).all(2).all(0)
    if (losses[inside] < surface.formula(torch.tensor(start, dtype=torch.float64))).any():
        losses = losses.masked_fill(~inside, math.inf)
    return RATES[int(losses.argmin())]


def table_row(surface: Surface, run: Descent, window: Window, target: float) -> tuple[str, ...]:
    """Return the cells of a row: the end, its loss and distance, steps to the target, its fate."""
    floor, end = lowest(surface), run.path[-1]
    distance, reached = "-", None
    if floor is not None:
        minima = torch.tensor(surface.minima, dtype=end.dtype)
        distance = f"{(minima - end).norm(dim=1).min():.2g}"
        reached = first(run.losses - floor < target)
    fate = run.stopped
    if run.diverged_at is not None:
        fate = f"diverged at step {run.diverged_at}"
    elif not fate and (left := left_at(run.path, window)) is not None:
        fate = f"left the window at step {left}"
    point = f"({end[0]:.3g}, {end[1]:.3g})"
    return point, f"{run.losses[-1]:.3g}", distance, "-" if reached is None else str(reached), fate


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_paths.png")
    parser.add_argument(
        "--surface",
        type=one_of([*SURFACES, "all"], "surface"),
        metavar="NAME",
        default=SURFACE,
        help=f"{', '.join(SURFACES)}, or all: a gallery (default: {SURFACE})",
    )
    parser.add_optimizers(OPTIMIZERS, "SGD, Momentum, Adagrad, RMSprop and Adam of optimizers/")
    parser.add_argument(
        "--start",
        type=finite_float,
        nargs=2,
        metavar=("X", "Y"),
        help="where every path begins (default: the surface's own start)",
    )
    parser.add("--steps", positive_int, STEPS, "steps of each optimizer")
    parser.add("--noise", non_negative_float, NOISE, "standard deviation of the gradient's noise")
    parser.add_argument(
        "--lr",
        type=positive_float,
        help="learning rate where a SPEC names none (default: the surface's, or else as --tune)",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="where a SPEC names no lr, find the one that ends lowest on this surface",
    )
    parser.add("--target", positive_float, TARGET, "height above the minimum that is near enough")
    parser.add_argument(
        "--animate", type=animation_path, metavar="PATH", help="the race, as .gif, .html or .mp4"
    )
    text = "the paths at one learning rate after another, likewise: an .html has a slider"
    parser.add_argument("--animate-rates", type=animation_path, metavar="PATH", help=text)
    return parser


def parse(argv: list[str] | None) -> Namespace:
    """Parse the words into options, with `specs`: the optimizers of each surface by name."""
    parser = make_parser()
    options = parser.parse(argv)
    gallery = options.surface == "all"
    if gallery and (options.start or options.animate or options.animate_rates):
        parser.error("--start, --animate and --animate-rates go with one surface, not with all")
    if options.tune and options.lr:
        parser.error("--lr and --tune exclude each other")
    names = list(SURFACES) if gallery else [options.surface]
    options.lrs = {k: None if options.tune else options.lr or SURFACES[k].lr for k in names}
    with parser.refusing():
        options.specs = {
            name: parse_optimizers(options.optimizers, lr) for name, lr in options.lrs.items()
        }
        surface = SURFACES[names[0]]
        if not values_in(window_around(surface, options.start), surface)[2].isfinite().all():
            raise ValueError(f"--start: {names[0]} is not finite around {options.start}")
        formula, start = surface.formula, surface.start
        try_optimizers(
            options.specs[names[0]],
            lambda spec: list(descend(formula, start, spec, torch.zeros(1, 2))),
        )
    return options


def descend_all(report: Report, options: Namespace, name: str) -> dict[str, Descent]:
    """Descend a surface with all its optimizers; fill the rows of its table."""
    surface, specs = SURFACES[name], options.specs[name]
    texts = dict(zip(specs, options.optimizers, strict=True))
    window = window_around(surface, options.start)

    def row(label: str, run: Descent) -> tuple[str, ...]:
        *cells, fate = table_row(surface, run, window, options.target)
        return label, *cells, parse_optimizer(texts[label], run.lr or options.lrs[name]).call, fate

    runs = compare(
        surface,
        specs,
        options.start,
        options.steps,
        options.noise,
        options.seed,
        tune=[label for label, spec in specs.items() if not spec.has_own_rate],
        progress=report.progress,
    )
    return report.collect(runs, row)


def films(
    report: Report, options: Namespace, name: str, runs: dict[str, Descent]
) -> dict[Path | None, Callable[[], FuncAnimation]]:
    """Return what makes the animations that are asked for, by path."""
    surface, progress = SURFACES[name], report.progress("animation")

    def of_rates() -> FuncAnimation:
        specs = parse_optimizers(options.optimizers)
        at_each = compare_rates(
            surface, specs, options.start, options.steps, options.noise, options.seed
        )
        return animate_rates(surface, at_each, options.start, progress)

    return {
        options.animate: lambda: animate(surface, runs, options.start, progress),
        options.animate_rates: of_rates,
    }


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    first, *others = options.specs
    columns = {
        "optimizer": f"{max(map(len, ['optimizer', *options.specs[first]]))}",
        "end": "20",
        "loss": ">8",
        "distance": ">8",
        f"steps to {options.target:g}": ">15",
        "call": "",
    }
    report = Report(options, columns, f"{first}: {SURFACES[first].lesson}")
    runs = {first: descend_all(report, options, first)}
    for name in others:
        if not report.interrupted:
            report.head(f"{name}: {SURFACES[name].lesson}")
            if descents := descend_all(report, options, name):
                runs[name] = descents

    rows = (
        (*([name] if others else []), label, step, *point, loss)
        for name, descents in runs.items()
        for label, run in descents.items()
        for step, (point, loss) in enumerate(
            zip(run.path.tolist(), run.losses.tolist(), strict=True)
        )
    )
    header = ("surface", *CSV_HEADER) if others else CSV_HEADER
    if others:
        return report.save(draw_gallery(runs), header, rows)
    figure = draw(SURFACES[first], runs[first], options.start)
    return report.save(figure, header, rows, films(report, options, first, runs[first]))


if __name__ == "__main__":
    run_main(main)
