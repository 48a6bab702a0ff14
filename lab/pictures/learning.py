"""Watch nets learn: an animation of their losses and of what they have learned by then."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lab.outcome import Progress, no_progress
from lab.pictures import animations, fits
from lab.training import trace
from lab.training.adapt import MakeOptimizer
from lab.training.runs import Runs, Training

import numpy
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure
from torch import Tensor

from tasks import Task

FRAMES, REST_FRAMES = 72, 24  # at twelve a second: six seconds, and two at the end


def moments(n_steps: int) -> list[int]:
    """Return the steps after which to look: closer together at the start, the last one for long."""
    return [*trace.moments(n_steps, FRAMES), *[n_steps] * REST_FRAMES]


def weights_at(
    steps: Sequence[int], task: Task, training: Training, make_optimizer: MakeOptimizer
) -> list[dict[str, Tensor]]:
    """Train a net once more; return its weights and buffers after these steps, in ascending order.

    Where it ends earlier, its last ones.
    """
    seen = trace.trace(task, training, make_optimizer, steps).seen
    states = (seen[max(known for known in seen if known <= step)] for step in steps)
    return [{name: value.unsqueeze(0) for name, value in state.items()} for state in states]


def animate(
    figure: Figure,
    runs: Mapping[str, Runs],
    optimizers: Mapping[str, MakeOptimizer],
    progress: Progress = no_progress,
) -> FuncAnimation:
    """Return an animation of the figure of compare_optimizers.draw(runs, fit=True), of one seed.

    The loss curves grow, and the fits bend to the data.
    """
    first = next(iter(runs.values()))
    task, (training,) = first.task, first.trainings
    fit = fits.fit_for(task, training)
    losses, *panels = figure.axes[: 1 + fit.n_panels(len(runs))]
    curves = {line: numpy.asarray(line.get_xydata()) for line in losses.lines}
    steps = moments(max(len(run.losses) for run in runs.values()))
    weights = {label: weights_at(steps, task, training, optimizers[label]) for label in runs}
    losses.set_title(f"Step {steps[-1]}", y=1.0)  # fixed: else it moves when others are hidden

    def show(number: int) -> None:
        losses.title.set_text(f"Step {steps[number]}")
        for line, points in curves.items():
            line.set_data(*points[points[:, 0] <= steps[number]].T)
        fit.move(
            panels,
            {k: replace(run, nets=[], weights=weights[k][number]) for k, run in runs.items()},
        )

    moving = [*curves, losses.title, *(artist for axes in panels for artist in fits.moving(axes))]
    return animations.animation_of(figure, moving, show, len(steps), progress)
