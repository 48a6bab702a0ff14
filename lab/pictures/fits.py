"""What nets have learned, drawn: a curve, decision regions, or a map, as suits the data."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from lab.pictures import curves
from lab.pictures.looks import background_color, class_colors, looks_of
from lab.pictures.style import once
from lab.training.datasets import holds_tensors
from lab.training.runs import Runs, Training
from lab.training.statistics import quartiles

import numpy
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from torch import Tensor

from tasks import Task
from training import evaluating

SIZE = 100  # points a side of what is drawn of a plane


class Fit(Protocol):
    """A way to draw what the nets of some optimizers have learned."""

    def n_panels(self, n_runs: int) -> int:
        """Return how many panels it needs for so many optimizers."""

    def draw(self, panels: Sequence[Axes], runs: Mapping[str, Runs]) -> None:
        """Draw the first seed's data, and what the nets have made of them."""

    def move(self, panels: Sequence[Axes], runs: Mapping[str, Runs]) -> None:
        """Move what is drawn to other weights of the same nets."""


def fit_for(task: Task, training: Training) -> Fit:
    """Return how nets that learn a task are drawn; ValueError where they cannot be."""
    if not holds_tensors(task, training.dataset):
        raise ValueError("--fit and --animate draw data that are a TensorDataset")
    x, y = training.dataset.tensors
    metric = training.metric(task)
    if x.shape[1:] == (2,) and metric and metric.chances and y.numel() == len(y):
        return Regions(metric.chances)
    with torch.no_grad(), evaluating(training.make_net(task)) as net:
        outputs = net(x[:2])
    if isinstance(outputs, Tensor) and outputs.shape == y[:2].shape and y.shape[1:] == (1,):
        if x.shape[1:] == (1,):
            return Curves()
        if x.shape[1:] == (2,):
            return Maps()
    raise ValueError(
        "--fit and --animate draw a curve of one input, or what two give: a class or a number"
    )


class Curves:
    """The curves of nets with one input: their median and quartiles over the seeds."""

    def n_panels(self, n_runs: int) -> int:
        return 1

    def draw(self, panels: Sequence[Axes], runs: Mapping[str, Runs]) -> None:
        (axes,) = panels
        x, y = data_of(runs)
        grid = torch.linspace(x.min(), x.max(), 200, device=x.device)
        axes.scatter(x.cpu(), y.cpu(), s=4, color=background_color(), label=once("the data"))
        axes.set(xlabel="x", ylabel="y", ylim=axes.get_ylim())  # the data's, whatever a net does
        for label, look in looks_of(runs).items():
            curves.median_band(axes, grid.cpu(), self.curve_of(runs[label], grid), label, look)

    def move(self, panels: Sequence[Axes], runs: Mapping[str, Runs]) -> None:
        (axes,) = panels
        for line, run in zip(axes.lines, runs.values(), strict=True):
            grid = torch.as_tensor(line.get_xdata(), device=data_of(runs)[0].device)
            line.set_ydata(self.curve_of(run, grid)[1].clamp(-1e30, 1e30).cpu())

    def curve_of(self, run: Runs, x: Tensor) -> Tensor:
        """Return the quartiles (3, points) of the nets' outputs for inputs x (points,)."""
        return quartiles(predict_all(run, x.unsqueeze(1)).squeeze(2).T)


class Regions:
    """The class that nets give to each point of the plane, a panel an optimizer.

    Of several seeds it is the class of the highest mean chance.
    """

    def __init__(self, chances: Callable[[Tensor], Tensor]):
        self.chances = chances  # of each class (points, classes), given a net's outputs

    def n_panels(self, n_runs: int) -> int:
        return n_runs

    def draw(self, panels: Sequence[Axes], runs: Mapping[str, Runs]) -> None:
        x, y = data_of(runs)
        palette = ListedColormap(class_colors(int(y.max()) + 1))
        look: dict[str, Any] = {"cmap": palette, "vmin": -0.5, "vmax": palette.N - 0.5}
        first, second = x.T.cpu()
        for axes, (label, run) in zip(panels, runs.items(), strict=True):
            draw_image(axes, x, self.classes_of(run, x), alpha=0.35, **look)
            points = axes.scatter(first, second, c=y.flatten().cpu(), s=3, **look)
            points.set_label(once("the data, on the class that the net gives"))
            axes.set(title=label)

    def move(self, panels: Sequence[Axes], runs: Mapping[str, Runs]) -> None:
        for axes, run in zip(panels, runs.values(), strict=True):
            axes.images[0].set_data(as_image(self.classes_of(run, data_of(runs)[0])))

    def classes_of(self, run: Runs, x: Tensor) -> Tensor:
        """Return the class (SIZE²,) of each point of the plane."""
        chances = [self.chances(outputs) for outputs in predict_all(run, plane(x))]
        return torch.stack(chances).nanmean(0).argmax(1)


class Maps:
    """The number that nets give to each point of the plane, beside the data's own.

    Of several seeds it is their median.
    """

    def n_panels(self, n_runs: int) -> int:
        return n_runs + 1

    def draw(self, panels: Sequence[Axes], runs: Mapping[str, Runs]) -> None:
        x, y = data_of(runs)
        limits: dict[str, Any] = {"vmin": y.min().item(), "vmax": y.max().item()}
        first, second = x.T.cpu()
        real, *others = panels
        heights = real.tripcolor(first, second, y.flatten().cpu(), shading="gouraud", **limits)
        real.figure.colorbar(heights, ax=real, label="y")
        real.set(title="the data", xlabel="x₁", ylabel="x₂")
        for axes, (label, run) in zip(others, runs.items(), strict=True):
            draw_image(axes, x, self.heights_of(run, x), **limits)
            axes.set(title=label)

    def move(self, panels: Sequence[Axes], runs: Mapping[str, Runs]) -> None:
        for axes, run in zip(panels[1:], runs.values(), strict=True):
            axes.images[0].set_data(as_image(self.heights_of(run, data_of(runs)[0])))

    def heights_of(self, run: Runs, x: Tensor) -> Tensor:
        """Return the number (SIZE²,) of each point of the plane."""
        return predict_all(run, plane(x)).squeeze(2).nanmedian(0).values


def moving(axes: Axes) -> list[Artist]:
    """Return what moves in a panel; the data, too, where they lie on an image that does."""
    return [*axes.lines, *axes.images, *(axes.collections if axes.images else [])]


def data_of(runs: Mapping[str, Runs]) -> tuple[Tensor, Tensor]:
    """Return x and y of the first seed."""
    x, y = next(iter(runs.values())).trainings[0].dataset.tensors
    return x, y


def predict_all(run: Runs, x: Tensor) -> Tensor:
    """Return the outputs of all nets (trainings, points, outputs)."""
    return torch.stack([run.predict(x, k) for k in range(len(run.trainings))])


def plane(x: Tensor) -> Tensor:
    """Return the points (SIZE², 2) of a grid over the range of x, row by row from below."""
    low, high = x.min(0).values.tolist(), x.max(0).values.tolist()
    first, second = (torch.linspace(*ends, SIZE) for ends in zip(low, high, strict=True))
    return torch.cartesian_prod(second, first).flip(1).to(x.device)


def as_image(values: Tensor) -> numpy.ndarray:
    """Return values (SIZE²,) as rows, the lowest first."""
    return values.reshape(SIZE, SIZE).numpy(force=True)


def draw_image(axes: Axes, x: Tensor, values: Tensor, **look: Any) -> None:
    """Draw values (SIZE²,) at the points of `plane(x)`."""
    low, high = x.min(0).values.tolist(), x.max(0).values.tolist()
    axes.imshow(
        as_image(values),
        origin="lower",
        extent=(low[0], high[0], low[1], high[1]),
        aspect="auto",
        **look,
    )
    axes.grid(visible=False)
    axes.set(xlabel="x₁", ylabel="x₂")
