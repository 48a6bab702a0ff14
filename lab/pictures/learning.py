"""Watch nets learn: an animation of their losses and of what they have learned by then."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lab.outcome import Progress, no_progress
from lab.pictures import animations, fits
from lab.training.adapt import MakeOptimizer, set_mode
from lab.training.datasets import loader_of
from lab.training.runs import Runs, Training, state_of
from lab.training.schedules import Schedule, schedulers_of

import numpy
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure
from torch import Tensor

from tasks import Task
from training import train

FRAMES, REST_FRAMES = 72, 24  # at twelve a second: six seconds, and two at the end


def moments(n_steps: int) -> list[int]:
    """Return the steps after which to look: closer together at the start, the last one for long."""
    steps = {round(n_steps * (k / (FRAMES - 1)) ** 2) for k in range(FRAMES)}
    return [*sorted(steps), *[n_steps] * REST_FRAMES]


def weights_at(
    steps: Sequence[int], task: Task, training: Training, make_optimizer: MakeOptimizer
) -> list[dict[str, Tensor]]:
    """Train a net once more; return its weights and buffers after these steps, in ascending order.

    Where it ends earlier, its last ones.
    """
    net = training.make_net(task)
    optimizer = training.make_optimizer(make_optimizer, net)
    loader = loader_of(task, training.dataset)
    schedule = Schedule(schedulers_of(make_optimizer), optimizer, len(loader))

    def state() -> dict[str, Tensor]:
        return {name: value.clone().unsqueeze(0) for name, value in state_of(net).items()}

    set_mode(optimizer, "train")
    step, seen = 0, {0: state()}
    try:
        for step, loss in enumerate(train(net, optimizer, loader, task.loss, task.epochs), start=1):
            schedule.step(loss)
            if step in steps or not math.isfinite(loss):
                seen[step] = state()
    except Exception:  # the table has told of it
        seen[step + 1] = state()
    return [seen[max(known for known in seen if known <= step)] for step in steps]


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
