"""What path does each optimizer take down a surface? Descend from one start and draw them all.

The gradients are exact or, with --noise, stochastic, with the same draws for every optimizer.
"""

import math
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import torch
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import cli
import plotting
from surfaces import SURFACES, Point, Surface
from training import descend

SURFACE = "valley"
OPTIMIZERS = [
    "SGD=optimizers.SGD",
    "Momentum=optimizers.SGD(momentum=0.5)",
    "Adagrad=optimizers.Adagrad",
    "RMSprop=optimizers.RMSprop(alpha=0.9)",
    "Adam=optimizers.Adam(betas=(0.9, 0.99))",
]
STEPS = 50
NOISE = 0.0
SEED = 0
TARGET = 0.01
TUNING_LRS = [float(f"{10 ** (i / 8):.2g}") for i in range(-32, 9)]  # 0.0001 to 10, 8 a decade
FRAMES = 100  # of an animation, at most

EXAMPLES = """\
  python compare_paths.py --noise 1 --optimizers SGD Momentum --lr 0.1
  python compare_paths.py --surface rosenbrock --tune --steps 200 --animate race.gif
  python compare_paths.py --surface all"""

CSV_HEADER = ("optimizer", "step", "x", "y", "loss")


class Descent(NamedTuple):
    """One optimizer's way down: what `compare` yields."""

    path: Tensor  # (steps + 1, 2), the start first
    losses: Tensor  # (steps + 1,)
    lr: float | None  # as tuned; None if the optimizer's own was used

    @property
    def diverged_at(self) -> int | None:
        """The step after which the point or its loss was not finite; None if they always were."""
        finite = self.path.isfinite().all(1) & self.losses.isfinite()
        return first(~finite)


def first(condition: Tensor) -> int | None:
    """Return the first index at which `condition` holds, or None."""
    indices = condition.nonzero()
    return int(indices[0]) if len(indices) else None


def compare(
    surface: Surface,
    optimizers: dict[str, Callable] | None = None,
    start: Point | None = None,
    steps: int = STEPS,
    noise: float = NOISE,
    seed: int = SEED,
    tune: Collection[str] = (),
) -> Iterator[tuple[str, Descent]]:
    """Descend `surface` once per optimizer; yield (label, Descent) as each arrives.

    `optimizers` maps a label to whatever makes the optimizer from param groups; this script's five
    by default, at the surface's own learning rate. `noise` is the standard deviation of what is
    added to each element of the gradient. Those labelled in `tune` get their own best rate.
    """
    if optimizers is None:
        optimizers = cli.parse_optimizers(OPTIMIZERS, surface.lr)
    generator = torch.Generator().manual_seed(seed)
    draws = noise * torch.randn(steps, 2, generator=generator, dtype=torch.float64)
    for label, make_optimizer in optimizers.items():
        torch.manual_seed(seed)
        way = surface.formula, start or surface.start, make_optimizer, draws
        lr = best_lr(*way) if label in tune else None
        path = descend(*way, lrs=[lr] if lr else None)[:, 0]
        yield label, Descent(path, surface.formula(path), lr)


def best_lr(formula: Callable, start: Point, make_optimizer: Callable, noise: Tensor) -> float:
    """Return the rate of TUNING_LRS with the lowest loss over the last tenth of the steps."""
    try:
        paths = descend(formula, start, make_optimizer, noise, TUNING_LRS)
        losses = formula(paths[-max(1, len(noise) // 10) :]).mean(0)
    except ValueError:  # LBFGS takes one param group only
        each = [descend(formula, start, make_optimizer, noise, [lr]) for lr in TUNING_LRS]
        losses = torch.stack([formula(path[-1, 0]) for path in each])
    return TUNING_LRS[losses.nan_to_num(math.inf, neginf=math.inf).argmin()]


def lowest(surface: Surface) -> float | None:
    """Return the value at the surface's minima, or None if it has none."""
    if not surface.minima:
        return None
    return surface.formula(torch.tensor(surface.minima[0], dtype=torch.float64)).item()


def window_around(surface: Surface, start: Point | None) -> tuple[Point, Point]:
    """Return the surface's window, made larger if `start` lies outside it."""
    if start is None:
        return surface.window
    return tuple(
        (min(low, value - 0.1 * (high - low)), max(high, value + 0.1 * (high - low)))
        if not low <= value <= high
        else (low, high)
        for (low, high), value in zip(surface.window, start, strict=True)
    )


def left_at(path: Tensor, window: tuple[Point, Point]) -> int | None:
    """Return the first step whose point lies outside the window, or None."""
    low, high = torch.tensor(window, dtype=path.dtype).T
    return first(((path < low) | (path > high)).any(1))


# ---------------------------------------------------------------- the figure


def values_in(window: tuple[Point, Point], surface: Surface) -> tuple[Tensor, Tensor, Tensor]:
    """Return the coordinates x (201,) and y (201,) of a grid over the window, and z (201, 201)."""
    x, y = (torch.linspace(low, high, 201, dtype=torch.float64) for low, high in window)
    return x, y, surface.formula(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1))


def draw_contours(axes: Axes, surface: Surface, window: tuple[Point, Point]) -> None:
    """Draw the surface's contours, and its minima or its saddle."""
    x, y, z = values_in(window, surface)
    height = z - z.min()
    # The lines are spread over the range of heights; logarithmically where a hundredth of the
    # window lies in the lowest thousandth of it, or the floor of a valley would have no line.
    low, high = height.quantile(0.01).item(), height.max().item()
    if low < 0.005 * high:
        levels = torch.logspace(math.log10(low), math.log10(high), 14)
    else:
        levels = torch.linspace(0, high, 12)[1:]
    axes.contour(x, y, height, levels=levels.tolist(), colors="lightgrey", linewidths=0.8)
    for point in surface.minima:
        axes.plot(
            *point, marker="*", markersize=15, color="black", markeredgecolor="white", zorder=3
        )
    if surface.saddle:
        axes.plot(*surface.saddle, marker="X", markersize=9, color="black", zorder=2)
    axes.grid(visible=False)
    axes.set(xlabel="x", ylabel="y", xlim=window[0], ylim=window[1])


def draw_paths(axes: Axes, runs: dict[str, Descent], window: tuple[Point, Point]) -> list:
    """Draw each path with its steps, and a larger dot at its end; return both, per optimizer."""
    colors = plotting.colors(runs)
    # A point at infinity cannot be drawn; ten windows away is as good, and out of sight.
    low, high = torch.tensor(window, dtype=torch.float64).T
    far = 10 * (high - low)
    artists = []
    for label, run in runs.items():
        path = run.path[run.path.isfinite().all(1)].clamp(low - far, high + far)
        (line,) = axes.plot(*path.T, color=colors[label], marker=".", markersize=4, linewidth=1.2)
        (end,) = axes.plot(*path[-1:].T, color=colors[label], marker="o", markersize=8)
        artists.append((line, end))
    start = next(iter(runs.values())).path[0]
    axes.plot(*start, marker="s", markersize=7, color="black", zorder=2)
    return artists


def draw_losses(
    axes: Axes, runs: dict[str, Descent], surface: Surface, window: tuple[Point, Point]
) -> list:
    """Draw each run's height above the minimum on a logarithmic axis; return the lines.

    A surface without a minimum has its plain loss drawn on a linear axis, within the window's.
    """
    floor = lowest(surface)
    *_, z = values_in(window, surface)
    low, high = (z.min().item(), z.max().item()) if floor is None else (0, z.max().item() - floor)
    colors = plotting.colors(runs)
    lines = []
    for label, run in runs.items():
        height = (run.losses - (floor or 0)).clamp(low - 9 * (high - low), 10 * high)
        name = label if run.lr is None else f"{label}, lr={run.lr:g}"
        name = name if run.diverged_at is None else f"{name} (diverged)"
        lines += axes.plot(height, color=colors[label], label=name)
    axes.set(xlabel="Steps", ylabel="Loss", ylim=(low, high))
    if floor is not None:
        plotting.log_scale(axes.yaxis)
        axes.set(ylabel="Loss above the minimum", ylim=(1e-8 * high, 2 * high))
    return lines


def draw(surface: Surface, runs: dict[str, Descent], start: Point | None = None) -> Figure:
    """Return the figure: the paths down the surface, and beside them the losses."""
    return draw_race(surface, runs, start)[0]


def draw_race(
    surface: Surface, runs: dict[str, Descent], start: Point | None = None
) -> tuple[Figure, list[tuple]]:
    """Return the figure of `draw`, and for each run the (path, end, loss) lines in it."""
    figure, (left, right) = plotting.new_figure(2)
    window = window_around(surface, start)
    draw_contours(left, surface, window)
    paths = draw_paths(left, runs, window)
    losses = draw_losses(right, runs, surface, window)
    plotting.legend(figure, losses)
    return figure, [(*pair, loss) for pair, loss in zip(paths, losses, strict=True)]


def draw_gallery(runs: dict[str, dict[str, Descent]]) -> Figure:
    """Return a figure with one panel of paths per surface."""
    figure, panels = plotting.new_figure(len(runs), n_rows=2 if len(runs) > 1 else 1)
    for axes, (name, descents) in zip(panels, runs.items(), strict=False):
        draw_contours(axes, SURFACES[name], SURFACES[name].window)
        artists = draw_paths(axes, descents, SURFACES[name].window)
        axes.set(title=name, xlabel="", ylabel="")
        for (line, _), label in zip(artists, descents, strict=True):
            line.set_label(label)
    for axes in panels[len(runs) :]:
        axes.remove()
    plotting.legend(figure, [line for line, _ in artists])
    return figure


def animate(
    surface: Surface,
    runs: dict[str, Descent],
    start: Point | None = None,
    progress: Callable[[range], Iterator[int]] = iter,
) -> FuncAnimation:
    """Return an animation of the race, with a rest at its end."""
    figure, racers = draw_race(surface, runs, start)
    courses = [(path.get_xydata(), loss.get_xydata()) for path, _, loss in racers]
    steps = max(len(run.path) for run in runs.values()) - 1
    moments = [*range(0, steps, -(-steps // FRAMES)), *[steps] * 12]

    def show(number: int) -> None:
        now = moments[number] + 1
        for (path, end, loss), (points, heights) in zip(racers, courses, strict=True):
            path.set_data(points[:now].T)
            end.set_data(points[:now][-1:].T)
            loss.set_data(heights[:now].T)

    plotting.freeze(figure, [line for racer in racers for line in racer])
    return FuncAnimation(
        figure,
        show,
        frames=lambda: progress(range(len(moments))),
        save_count=len(moments),
        cache_frame_data=False,
    )


# ---------------------------------------------------------------- the table and the command line


def table_row(
    surface: Surface, run: Descent, window: tuple[Point, Point], target: float
) -> tuple[str, ...]:
    """Return the end, loss, distance, steps to the target and fate, as the table shows them."""
    floor, end = lowest(surface), run.path[-1]
    distance, reached = "-", None
    if floor is not None:
        minima = torch.tensor(surface.minima, dtype=end.dtype)
        distance = f"{(minima - end).norm(dim=1).min():.2g}"
        reached = first(run.losses - floor < target)
    fate = ""
    if run.diverged_at is not None:
        fate = f"diverged at step {run.diverged_at}"
    elif (left := left_at(run.path, window)) is not None:
        fate = f"left the window at step {left}"
    point = f"({end[0]:.3g}, {end[1]:.3g})"
    steps = "-" if reached is None else str(reached)
    return point, f"{run.losses[-1]:.3g}", distance, steps, fate


def make_parser() -> cli.Parser:
    parser = cli.Parser(__doc__, EXAMPLES)
    parser.add_argument(
        "--surface",
        type=surface_name,
        metavar="NAME",
        default=SURFACE,
        help=f"{', '.join(SURFACES)}, or all: a gallery (default: {SURFACE})",
    )
    parser.add_optimizers(OPTIMIZERS, "SGD, Momentum, Adagrad, RMSprop and Adam of optimizers.py")
    parser.add_argument(
        "--start",
        type=cli.finite_float,
        nargs=2,
        metavar=("X", "Y"),
        help="where every path begins (default: the surface's own start)",
    )
    parser.add("--steps", cli.positive_int, STEPS, "steps of each optimizer")
    parser.add(
        "--noise", cli.non_negative_float, NOISE, "standard deviation of the gradient's noise"
    )
    parser.add_argument(
        "--lr",
        type=cli.positive_float,
        help="learning rate where a SPEC names none (default: the surface's, or else as --tune)",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="where a SPEC names no lr, find the one that ends lowest on this surface",
    )
    parser.add(
        "--target", cli.positive_float, TARGET, "height above the minimum that is near enough"
    )
    parser.add_argument(
        "--animate",
        type=cli.animation_path,
        metavar="PATH",
        help="the race, as .gif, .html or .mp4",
    )
    parser.add_common_options(SEED, "compare_paths.png")
    return parser


def surface_name(text: str) -> str:
    if text not in SURFACES and text != "all":
        hint = cli.nearest(text, [*SURFACES, "all"])
        raise cli.argparse.ArgumentTypeError(f"unknown surface {text!r}{hint}")
    return text


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse(argv)
    gallery = args.surface == "all"
    if gallery and (args.start or args.animate):
        parser.error("--start and --animate go with one surface, not with all")
    if args.tune and args.lr:
        parser.error("--lr and --tune exclude each other")
    start = tuple(args.start) if args.start else None
    try:
        names = list(SURFACES) if gallery else [args.surface]
        lrs = {name: None if args.tune else args.lr or SURFACES[name].lr for name in names}
        optimizers = {name: cli.parse_optimizers(args.optimizers, lrs[name]) for name in names}
        specs, surface = optimizers[names[0]], SURFACES[names[0]]
        cli.try_optimizers(specs, lambda one: list(compare(surface, one, steps=1)))
    except ValueError as error:
        parser.error(str(error))

    layout = f"{{:{max(map(len, ['optimizer', *specs]))}}}  {{:20}}  {{:>8}}  {{:>8}}"
    layout += "  {:>15}  {}"
    header = ("optimizer", "end", "loss", "distance", f"steps to {args.target:g}", "call")
    runs, interrupted = {}, False
    try:
        for name, specs in optimizers.items():
            surface = SURFACES[name]
            print(f"{name}: {surface.lesson}")
            print(layout.format(*header))
            tune = [label for label, spec in specs.items() if "lr" not in spec.keywords]
            settings = start, args.steps, args.noise, args.seed, tune
            window = window_around(surface, start)
            for text, (label, run) in zip(
                args.optimizers, compare(surface, specs, *settings), strict=True
            ):
                runs.setdefault(name, {})[label] = run
                *cells, fate = table_row(surface, run, window, args.target)
                call = cli.parse_optimizer(text, run.lr or lrs[name]).call
                print(layout.format(label, *cells, f"{call}  {fate}".strip()), flush=True)
    except KeyboardInterrupt:
        if not runs:
            raise
        interrupted = True

    figure = draw_gallery(runs) if gallery else draw(surface, runs[args.surface], start)
    if args.animate and not interrupted:
        try:
            progress = cli.progress("animation", "frame")
            movie = animate(surface, runs[args.surface], start, progress)
            plotting.save_animation(movie, args.animate)
            print(f"saved {args.animate}")
        except KeyboardInterrupt:
            interrupted = True
    rows = (
        (*([name] if gallery else []), label, step, *point, loss)
        for name, descents in runs.items()
        for label, run in descents.items()
        for step, (point, loss) in enumerate(
            zip(run.path.tolist(), run.losses.tolist(), strict=True)
        )
    )
    header = ("surface", *CSV_HEADER) if gallery else CSV_HEADER
    return cli.finish(args, figure, header, rows, interrupted)


if __name__ == "__main__":
    cli.run(main)
