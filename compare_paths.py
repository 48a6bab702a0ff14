"""What path does each optimizer take down a surface? Descend from one start and draw them all.

The gradients are exact or, with --noise, stochastic, with the same draws for every optimizer. With
--task, it is the paths of a net's weights: over a plane through their start and two of their ends.
"""

import math
from argparse import Namespace
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lab.command_line.memory import BYTES_PER_STEP, check_memory
from lab.command_line.options import TASK_HELP, TaskNames, add_batch_size, add_optimizers
from lab.command_line.parser import Parser
from lab.command_line.specs import Spec, parse_optimizers
from lab.command_line.tasks import load_task
from lab.command_line.types import (
    animation_path,
    finite_float,
    non_negative_float,
    one_of,
    positive_float,
    positive_int,
)
from lab.outcome import ProgressOf, keeping, nearest, show_none
from lab.output.main import run_main
from lab.output.report import Report
from lab.output.table import NUMBER, Column, as_numbers, in_digits, name_columns
from lab.pictures import planes as plane_pictures
from lab.pictures.paths import animate, animate_lrs, draw, draw_gallery
from lab.training.adapt import MakeOptimizer
from lab.training.checks import check_optimizers, take_a_step
from lab.training.descent import (
    Descent,
    Window,
    best_lr,
    descend,
    descents_at_each_lr,
    draw_noise,
    first_true,
    left_at,
    lowest,
    vectorized,
    window_around,
)
from lab.training.planes import (
    LOOKS,
    Landscape,
    landscape,
    n_weights_of,
    rise,
    survey,
    walk,
)
from lab.training.rotation import turned_surface
from lab.training.runs import trainings_of
from lab.training.trace import Trace

import torch
from matplotlib.animation import FuncAnimation

from settings import LR, SEED
from surfaces import SURFACES, Point, Surface
from tasks import Task

SURFACE = "valley"
OPTIMIZERS = {
    "SGD": "optimizers.SGD",
    "Momentum 0.5": "optimizers.SGD(momentum=0.5)",
    "Adagrad": "optimizers.Adagrad",
    "RMSprop": "optimizers.RMSprop(alpha=0.9)",
    "Adam": "optimizers.Adam(betas=(0.9, 0.99))",
}
STEPS = 50
NOISE = 0.0
TARGET = 0.01

EXAMPLES = """\
  python compare_paths.py --noise 1 --optimizers SGD Momentum --lr 0.1
  python compare_paths.py --surface rosenbrock --steps 200 --animate race.gif
  python compare_paths.py --animate-rates rates.html
  python compare_paths.py --surface all
  python compare_paths.py --task spirals --lr 0.1 --animate paths.html"""

CSV_HEADER = ("optimizer", "step", "x", "y", "loss")
PLANE_HEADER = ("optimizer", "step", "x", "y", "distance", "loss", "loss_below")  # with --task


def compare(
    surface: Surface,
    optimizers: Mapping[str, MakeOptimizer] | None = None,
    start: Point | None = None,
    steps: int = STEPS,
    noise: float = NOISE,
    seed: int = SEED,
    tune: Collection[str] = (),
    progress: ProgressOf = show_none,
) -> Iterator[tuple[str, Descent]]:
    """Descend `surface` once per optimizer; yield (label, Descent) as each arrives.

    `optimizers` maps a label to whatever makes the optimizer from param groups; this script's five
    by default, at the surface's own learning rate. `noise` is the standard deviation of what is
    added to each element of the gradient. Those labelled in `tune` get their own best rate, and so
    do the five where the surface has no rate of its own.

        for label, run in compare(SURFACES["rosenbrock"], steps=200):
            print(label, run.lr, run.path[-1])
    """
    if optimizers is None:
        optimizers = parse_optimizers(OPTIMIZERS, surface.lr)
        tune = tune if surface.lr else optimizers.keys()
    start, draws = start or surface.start, draw_noise(noise, steps, seed)
    for label, make_optimizer in optimizers.items():
        torch.manual_seed(seed)
        run = Descent(surface.formula, torch.tensor([start] * (steps + 1), dtype=torch.float64))
        with keeping(run):
            if label in tune:
                run.lr = best_lr(surface, start, make_optimizer, draws)
            path = descend(surface.formula, start, make_optimizer, draws, [run.lr])
            run.take_steps(progress(label)(path, steps, "step"))
        yield label, run
        run.raise_if_interrupted()


def distance(surface: Surface, run: Descent) -> float | None:
    """Return how far the end is from the nearest minimum."""
    if not surface.minima:
        return None
    minima = torch.tensor(surface.minima, dtype=run.path.dtype)
    return (minima - run.path[-1]).norm(dim=1).min().item()


def steps_to(surface: Surface, run: Descent, target: float) -> float | None:
    """Return after how many steps a path is less than `target` above the minimum, or infinity.

    None where it ended early, and might have come there.
    """
    if (floor := lowest(surface)) is None:
        return None
    reached = first_true(run.losses - floor < target)
    return reached if reached is not None or run.stopped else math.inf


def point_in_words(point: torch.Tensor) -> str:
    """Return a point to four decimals, or to four digits where it is far away."""
    x, y = (format(value, ".4g" if abs(value) > 100 else ".4f") for value in point.tolist())
    return f"({x}, {y})".replace("-0.0000", "0.0000")


def end_in_words(run: Descent, window: Window) -> str:
    """Return what else became of a path: it diverged, failed, or ended outside the window."""
    if run.stopped:
        return run.stopped
    if run.diverged_at is not None:
        return f"diverged at step {run.diverged_at}"
    if left_at(run.path[-1:], window) is not None:
        return f"left the window at step {left_at(run.path, window)}"
    return ""


def columns_of(
    surface: Surface, optimizers: Iterable[str], target: float = TARGET
) -> list[Column[str, Descent]]:
    """Return the columns of a surface's table."""

    def lr(label: str, run: Descent) -> float | None:
        first = run.lr or next(iter(run.lr_history), None)
        return None if first is None else float(first)  # it may be a tensor

    columns: list[Column[str, Descent]] = [
        *name_columns(optimizers),
        Column("lr", ">8", lr, ".3g", goes=1),
        Column("end", "<18", lambda label, run: point_in_words(run.path[-1])),
        Column("loss", ">9", lambda label, run: run.losses[-1].item()),
    ]
    if surface.minima:
        title = f"steps to {target:g}"
        columns += [
            Column("distance", NUMBER, lambda label, run: distance(surface, run)),
            Column(
                title, NUMBER, lambda label, run: steps_to(surface, run, target), ".0f", "never"
            ),
        ]
    return columns


def rows(
    surface: Surface, runs: Mapping[str, Descent] | Iterable[tuple[str, Descent]]
) -> list[dict[str, Any]]:
    """Return the table of what `compare` yields as numbers, which pandas.DataFrame takes."""
    runs = dict(runs)
    return as_numbers(columns_of(surface, runs), runs)


# ---------------------------------------------------------------- the paths of a net's weights


def compare_on(
    task: Task,
    optimizers: Mapping[str, MakeOptimizer] | None = None,
    seed: int = SEED,
    progress: ProgressOf = show_none,
) -> Iterator[tuple[str, Trace]]:
    """Train a task's net once per optimizer; yield (label, Trace) as each finishes.

    `landscape` puts the paths beside a plane, and `survey` computes that plane's losses.

        scene = landscape(dict(compare_on(TASKS["spirals"])), through=["SGD", "Adam"])
        list(survey(scene))
        lab.pictures.planes.draw(scene)
    """
    (training,) = trainings_of(task, [seed])
    for label, make_optimizer in (optimizers or parse_optimizers(OPTIMIZERS, LR)).items():
        run = walk(task, training, make_optimizer, progress(label))
        yield label, run
        run.raise_if_interrupted()


def columns_on(optimizers: Iterable[str]) -> list[Column[str, Trace]]:
    """Return the columns of a task's table."""
    return [
        *name_columns(optimizers),
        Column("lr", ">8", lambda label, run: run.lr, ".3g", goes=1),
        Column("loss", NUMBER, lambda label, run: run.loss, infinite="diverged"),
        Column("moved", NUMBER, lambda label, run: run.moved),
    ]


def conclusions(scene: Landscape) -> Iterator[str]:
    """Yield what the plane shows, and what it does not, in sentences."""
    yield f"The plane goes through {plane_pictures.corners_in_words(scene)}."
    far = {label: path.distances.max().item() for label, path in scene.paths.items()}
    told = ", ".join(f"{label} {in_digits(distance, 3)}" for label, distance in far.items())
    yield f"Largest distances of the paths from it: {told}."
    label, path = max(scene.calm.items(), key=lambda item: item[1].distances[-1])
    if path.losses_below is not None and label not in scene.through:
        own, below = (in_digits(losses[-1].item()) for losses in (path.losses, path.losses_below))
        yield f"{label} is not where it is drawn: it ends at {own}, the plane below it has {below}."
    if scene.wall:
        straight, matched, reason = scene.wall
        one, other = map(plane_pictures.in_words, scene.ends)
        after = f"not matched: {reason}"
        if matched:
            after = f"{wall_in_words(matched.losses)} once hidden units are matched"
        yield f"Straight from {one} to {other}: {wall_in_words(straight.losses)} ({after})."


def wall_in_words(losses: torch.Tensor) -> str:
    """Return how high the wall is on a straight line, and where."""
    height, share = rise(losses)
    return f"a wall of {in_digits(height, 3)} at {share:.0%} of the way" if height else "no wall"


# ---------------------------------------------------------------- the command line


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_paths.png")
    parser.add_argument(
        "--task",
        action=TaskNames,
        metavar="NAME",
        help=f"the paths of a net's weights, in place of a surface: {TASK_HELP}",
    )
    parser.add_argument(
        "--plane",
        nargs="+",
        metavar="NAME",
        help="with --task: as SGD Adam, through the start and the ends of these two, or through "
        "the ends of three (default: the first and the last of --optimizers)",
    )
    text = "with --task: how often to go through the data (default: the task's own)"
    parser.add_argument("--epochs", type=positive_int, help=text)
    add_batch_size(parser)
    parser.add_argument(
        "--surface",
        type=one_of([*SURFACES, "all"], "surface"),
        metavar="NAME",
        default=SURFACE,
        help=f"{', '.join(SURFACES)}, or all: a gallery (default: {SURFACE})",
    )
    add_optimizers(parser, OPTIMIZERS, "SGD, Momentum, Adagrad, RMSprop and Adam of optimizers/")
    parser.add_argument(
        "--start",
        type=finite_float,
        nargs=2,
        metavar=("X", "Y"),
        help="where every path begins, as 1 2 (default: the surface's own start)",
    )
    parser.add("--steps", positive_int, STEPS, "how many steps each optimizer takes")
    parser.add(
        "--noise",
        non_negative_float,
        NOISE,
        "how much noise to add to each gradient: its standard deviation",
    )
    parser.add_argument(
        "--lr",
        type=positive_float,
        help="the learning rate, where a NAME in brackets has no lr of its own (default: the "
        "surface's, or else as with --tune; of a task 0.01)",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="find the learning rate that ends lowest on this surface, where --lr would be used",
    )
    parser.add(
        "--target",
        positive_float,
        TARGET,
        "the column `steps to` counts the steps until the loss is so near to the minimum",
    )
    text = "turn the surface by 45 degrees, or the axes of a task's weights"
    parser.add_argument("--rotate", action="store_true", help=text)
    parser.add_argument(
        "--animate",
        type=animation_path,
        metavar="PATH",
        help="also a film of the race, as .gif, .html or .mp4",
    )
    text = "also a film of the paths at one learning rate after another; as .html, with a slider"
    parser.add_argument("--animate-rates", type=animation_path, metavar="PATH", help=text)
    return parser


OF_SURFACES = ("surface", "start", "steps", "noise", "tune", "target", "animate_rates")
OF_TASKS = ("plane", "epochs", "batch_size")


def parse(argv: list[str] | None) -> tuple[Parser, Namespace]:
    """Parse the words; refuse those that do not go together."""
    parser = make_parser()
    options = parser.parse(argv)
    for name in OF_SURFACES if options.task else OF_TASKS:
        if getattr(options, name) != parser.get_default(name):
            flag = f"--{name.replace('_', '-')}"
            is_of = "a surface, not with --task" if options.task else "--task, not with a surface"
            parser.error(f"{flag} goes with {is_of}")
    return parser, options


def parse_surfaces(
    parser: Parser, options: Namespace
) -> tuple[dict[str, Surface], dict[str, dict[str, Spec]]]:
    """Return by name the surfaces and their optimizers."""
    gallery = options.surface == "all"
    if gallery and (options.start or options.animate or options.animate_rates):
        parser.error("--start, --animate and --animate-rates go with one surface, not with all")
    if options.tune and options.lr:
        parser.error("--lr and --tune exclude each other")
    names = list(SURFACES) if gallery else [options.surface]
    with parser.refusing():
        check_memory(options, BYTES_PER_STEP * options.steps * len(options.optimizers))
        surfaces = {name: vectorized(name, SURFACES[name]) for name in names}
        if options.rotate:
            surfaces = {name: turned_surface(surface) for name, surface in surfaces.items()}
        specs = {
            name: parse_optimizers(
                options.optimizers, None if options.tune else options.lr or surface.lr
            )
            for name, surface in surfaces.items()
        }
        first = surfaces[names[0]]
        start = options.start or first.start
        if not first.formula(torch.tensor(start, dtype=torch.float64)).isfinite():
            raise ValueError(f"--start: {names[0]} is not finite at {start}")
        check_optimizers(
            specs[names[0]],
            lambda spec: list(descend(first.formula, first.start, spec, torch.zeros(1, 2))),
        )
    return surfaces, specs


def animations_of(
    options: Namespace, surface: Surface, runs: Mapping[str, Descent], progress: ProgressOf
) -> dict[Path, Callable[[], FuncAnimation]]:
    """Return what makes the animations that are asked for, by path."""
    animations: dict[Path, Callable[[], FuncAnimation]] = {}
    if options.animate:
        animations[options.animate] = lambda: animate(
            surface, runs, options.start, progress("animation")
        )
    if options.animate_rates:

        def at_each_lr() -> FuncAnimation:
            specs = parse_optimizers(options.optimizers)
            start = options.start or surface.start
            noise = draw_noise(options.noise, options.steps, options.seed)
            each = descents_at_each_lr(surface, specs, start, noise, options.seed)
            return animate_lrs(surface, each, options.start, progress("animation"))

        animations[options.animate_rates] = at_each_lr
    return animations


def main(argv: list[str] | None = None) -> int:
    parser, options = parse(argv)
    return (main_of_task if options.task else main_of_surfaces)(parser, options)


def main_of_task(parser: Parser, options: Namespace) -> int:
    with parser.refusing():
        task, training = load_task(options, options.task)
        optimizers = parse_optimizers(options.optimizers, options.lr or LR)
        check_plane(options, task, optimizers)
        check_optimizers(optimizers, partial(take_a_step, task, training))

    columns = columns_on(optimizers)
    report: Report[str, Any] = Report(
        options.output, options.csv, columns, task=f"--task {options.task}"
    )
    runs: dict[str, Trace] = {}
    found = compare_on(task, optimizers, options.seed, report.progress)
    for label, run in report.collect(found):
        runs[label] = run
        report.row(label, run)
    scene = landscape(runs, options.plane or ())
    if not report.interrupted:
        for _ in report.collect(survey(scene, report.progress)):
            pass
    report.explain(optimizers)
    report.conclude(partial(conclusions, scene))

    animations = {}
    if options.animate:
        film = partial(plane_pictures.animate, scene, report.progress("animation"))
        animations[options.animate] = film
    figure = partial(plane_pictures.draw, scene)
    return report.save(figure, PLANE_HEADER, scene.rows(), animations)


def check_plane(options: Namespace, task: Task, optimizers: Mapping[str, Spec]) -> None:
    """Refuse corners that are none, and weights that would not fit."""
    names = options.plane or []
    for name in names:
        if name not in optimizers:
            raise ValueError(f"--plane: unknown optimizer {name!r}{nearest(name, [*optimizers])}")
    if len(set(names)) != len(names) or len(names) > 3:
        raise ValueError("--plane: name two of --optimizers, or three, each once")
    n_weights = n_weights_of(task)
    check_memory(options, LOOKS * 4 * n_weights * len(optimizers))


def main_of_surfaces(parser: Parser, options: Namespace) -> int:
    surfaces, specs = parse_surfaces(parser, options)
    first, *others = surfaces
    titles = {name: f"{name}: {surface.lesson}" for name, surface in surfaces.items()}
    columns = {
        name: columns_of(surface, specs[name], options.target) for name, surface in surfaces.items()
    }
    of = f"--surface {options.surface}"
    report = Report(options.output, options.csv, columns[first], titles[first], of)
    runs: dict[str, dict[str, Descent]] = {}
    for name, surface in surfaces.items():
        optimizers = specs[name]
        if name in others:
            report.begin_table(columns[name], titles[name])
        descents = compare(
            surface,
            optimizers,
            options.start,
            options.steps,
            options.noise,
            options.seed,
            tune=[label for label, spec in optimizers.items() if not spec.has_own_lr],
            progress=report.progress,
        )
        for label, run in report.collect(descents):
            runs.setdefault(name, {})[label] = run
            report.row(label, run, end_in_words(run, window_around(surface, options.start)))
        if report.interrupted:
            break
    report.explain(parse_optimizers(options.optimizers))

    points = (
        (*([name] if others else []), label, step, *point, loss)
        for name, descents in runs.items()
        for label, run in descents.items()
        for step, (point, loss) in enumerate(
            zip(run.path.tolist(), run.losses.tolist(), strict=True)
        )
    )
    if others:
        return report.save(partial(draw_gallery, runs, surfaces), ("surface", *CSV_HEADER), points)
    animations = animations_of(options, surfaces[first], runs[first], report.progress)
    figure = partial(draw, surfaces[first], runs[first], options.start)
    return report.save(figure, CSV_HEADER, points, animations)


if __name__ == "__main__":
    run_main(main)
