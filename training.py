"""The training loops: one net, many nets at once, a point on a surface."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import mse_loss
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset


def train(
    net: nn.Module,
    optimizer: Optimizer,
    loader: DataLoader,
    epochs: int,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[float]:
    """Train `net` on mean squared error; return the mini-batch loss before each step.

    Every step is an `optimizer.step(closure)`, so that an optimizer which evaluates the loss more
    than once a step (LBFGS) works like the rest. Training stops at the first loss that is not
    finite, and that loss is the last in the list. `progress` may wrap the epochs (tqdm fits).
    """

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = mse_loss(net(x), y)
        loss.backward()
        return loss

    losses = []
    for _ in progress(range(epochs)):
        for x, y in loader:  # noqa: B007 (the closure reads them)
            losses.append(optimizer.step(closure).item())
            if not math.isfinite(losses[-1]):
                return losses
    return losses


class Many(NamedTuple):
    """Many trainings. A net whose loss stopped being finite has no finite loss from there on."""

    losses: Tensor  # (steps, rates, seeds), the mini-batch loss before each step
    final_losses: Tensor  # (rates, seeds), over the whole training set, after training
    parameters: Tensor  # (rates, seeds, parameters of a net), trained
    stacked: bool  # or one by one


def train_many(
    nets: list[nn.Module],
    make_optimizer: Callable[..., Optimizer],
    dataset: TensorDataset,
    make_loader: Callable[[TensorDataset], DataLoader],
    epochs: int,
    lrs: list[float] | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Many:
    """Train every net, at every learning rate if `lrs` are given: all at once if that is the same.

    `nets` have one shape and a start of their own each; x and y of `dataset` are (samples, seeds,
    features), a column of samples for each net. Every call of `make_loader` has to serve the same
    mini-batches. The nets themselves are left as they are.
    """
    how = make_optimizer, dataset, make_loader
    if can_stack(nets, *how, lrs):
        return train_stack(nets, *how, epochs, lrs, progress)
    return train_one_by_one(nets, *how, epochs, lrs, progress)


def can_stack(nets, make_optimizer, dataset, make_loader, lrs=None) -> bool:
    """Tell whether a stack of nets trains as each does alone, by trying: two nets, three steps.

    It does if vmap can run the net and the optimizer treats every element alone.
    """
    small = TensorDataset(*(tensor[:32, :2] for tensor in dataset.tensors))
    middle = lrs and lrs[(len(lrs) - 1) // 2 :][:2]
    how = nets[:2], make_optimizer, small, lambda data: list(make_loader(data))[:1], 3, middle
    try:
        together = train_stack(*how).parameters
    except Exception:  # whatever vmap or an optimizer may raise
        return False
    apart = train_one_by_one(*how).parameters
    starts = [nn.utils.parameters_to_vector(net.parameters()) for net in nets[:2]]
    moved = apart - torch.stack(starts).detach()
    return bool((together - apart).norm() <= 0.01 * moved.norm())


def train_stack(
    nets, make_optimizer, dataset, make_loader, epochs, lrs=None, progress=iter
) -> Many:
    """Train as `train_many` does, all nets and rates at once.

    One forward pass runs every net, one backward pass of the summed losses gives each its own
    gradient. All parameters are one matrix with a row for each net; the optimizer has one param
    group for each rate, whose one parameter is that rate's rows. So a step costs little more than
    for a single net.
    """
    shape = n_rates, _ = len(lrs or [None]), len(nets)
    starts, buffers = stack_module_state(nets)
    matrix = torch.cat([start.detach().reshape(len(nets), -1) for start in starts.values()], 1)
    matrix = matrix.repeat(n_rates, 1)
    columns = matrix.split([start[0].numel() for start in starts.values()], 1)
    weights = {  # views of the matrix, in the shapes that the net knows
        name: column.view(-1, *start.shape[1:]).requires_grad_()
        for (name, start), column in zip(starts.items(), columns, strict=True)
    }
    buffers = {name: torch.cat([buffer] * n_rates) for name, buffer in buffers.items()}
    rows = matrix.unflatten(0, shape).unbind()
    groups = [{"params": [row]} for row in rows]
    for group, lr in zip(groups, lrs or [], strict=bool(lrs)):
        group["lr"] = lr
    optimizer = make_optimizer(groups)

    def predict_one(weights: dict, buffers: dict, x: Tensor) -> Tensor:
        return functional_call(nets[0], weights | buffers, (x,))

    predict = vmap(predict_one, in_dims=(0, 0, 1), out_dims=1)

    def squares(x: Tensor, y: Tensor) -> Tensor:
        """Return the squared errors (samples, rates, seeds, outputs)."""
        predictions = predict(weights, buffers, torch.cat([x] * n_rates, 1))
        return (predictions.unflatten(1, shape) - y.unsqueeze(1)).square()

    def closure() -> Tensor:
        loss = squares(x, y).mean((0, 3))
        grads = torch.autograd.grad(loss.sum(), list(weights.values()))
        grads = torch.cat([grad.reshape(len(matrix), -1) for grad in grads], 1)
        for row, grad in zip(rows, grads.unflatten(0, shape), strict=True):
            row.grad = grad
        record.copy_(loss.detach())
        return loss.sum().detach()

    loader = make_loader(dataset)
    losses = matrix.new_empty(epochs * len(loader), *shape)
    records = iter(losses)
    for _ in progress(range(epochs)):
        for x, y in loader:  # noqa: B007 (the closure reads them)
            record = next(records)
            optimizer.step(closure)
    with torch.no_grad():  # in parts, or many nets on many samples would fill the memory
        size = max(16, 200_000 // len(matrix))
        parts = zip(*(tensor.split(size) for tensor in dataset.tensors), strict=True)
        total = sum(squares(x, y).sum(0) for x, y in parts).mean(2)
    return Many(losses, total / len(dataset), matrix.unflatten(0, shape), stacked=True)


def train_one_by_one(
    nets, make_optimizer, dataset, make_loader, epochs, lrs=None, progress=iter
) -> Many:
    """Train as `train_many` does, one net after the other."""
    runs = [(lr, k) for lr in lrs or [None] for k in range(len(nets))]
    losses, finals, parameters = [], [], []
    for number in progress(range(len(runs))):
        lr, k = runs[number]
        net = copy.deepcopy(nets[k])
        group = {"params": list(net.parameters())} | ({} if lr is None else {"lr": lr})
        loader = make_loader(dataset)
        losses.append(train(net, make_optimizer([group]), Column(loader, k), epochs))
        finals.append(evaluate(net, TensorDataset(*(tensor[:, k] for tensor in dataset.tensors))))
        parameters.append(nn.utils.parameters_to_vector(net.parameters()).detach())
    n_steps = epochs * len(loader)
    padded = torch.full((len(runs), n_steps), math.nan)
    for row, history in zip(padded, losses, strict=True):
        row[: len(history)] = torch.tensor(history)
    shape = len(lrs or [None]), len(nets)
    return Many(
        padded.T.unflatten(1, shape),
        torch.tensor(finals).unflatten(0, shape),
        torch.stack(parameters).unflatten(0, shape),
        stacked=False,
    )


class Column:
    """The mini-batches of a loader that belong to its k-th net."""

    def __init__(self, loader: Iterable[tuple[Tensor, Tensor]], k: int):
        self.loader, self.k = loader, k

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((x[:, self.k], y[:, self.k]) for x, y in self.loader)


def descend(
    formula: Callable[[Tensor], Tensor],
    start: tuple[float, float],
    make_optimizer: Callable[..., Optimizer],
    noise: Tensor,
    lrs: list[float] | None = None,
) -> Tensor:
    """Descend a surface from `start` by its gradient plus one row of `noise` a step.

    `formula` maps points (n, 2) to values (n,), and `noise` (steps, 2) may be zeros. With `lrs`,
    all n rates descend at once, each a param group whose one parameter is a row of the points;
    without, n is 1 and the optimizer's own rate is used. Returns the path (steps + 1, n, 2) in
    float64. It ends early, with the step that was not finite, when no point is finite any more.
    """
    groups = [{}] if lrs is None else [{"lr": lr} for lr in lrs]
    points = torch.tensor([start] * len(groups), dtype=torch.float64)
    rows = points.unbind()
    optimizer = make_optimizer(
        [{"params": [row]} | group for row, group in zip(rows, groups, strict=True)]
    )

    def closure() -> Tensor:
        leaf = points.clone().requires_grad_()
        loss = formula(leaf).sum()
        for row, grad in zip(rows, *torch.autograd.grad(loss, leaf), strict=True):
            row.grad = grad + disturbance
        return loss.detach()

    path = [points.clone()]
    for disturbance in noise:  # noqa: B007 (the closure reads it)
        optimizer.step(closure)
        path.append(points.clone())
        if not points.isfinite().all(1).any():
            break
    return torch.stack(path)


@torch.no_grad()
def evaluate(net: nn.Module, dataset: TensorDataset) -> float:
    """Return the mean squared error of `net` over the whole dataset."""
    x, y = dataset.tensors
    return mse_loss(net(x), y).item()


def steps_to_target(losses: list[float], target: float, window: int) -> int | None:
    """Return the first step at which the mean of the last `window` losses is below `target`.

    Steps count from 1. None if that never happens.
    """
    if len(losses) < window:
        return None
    means = torch.tensor(losses, dtype=torch.float64).unfold(0, window, 1).mean(1)
    below = (means < target).nonzero()
    return int(below[0]) + window if len(below) else None


def quartiles_of_steps(losses: Tensor, target: float, window: int) -> Tensor:
    """Return the quartiles (3,) over nets of `steps_to_target`, for losses (steps, nets)."""
    steps = [steps_to_target(history, target, window) for history in losses.T.tolist()]
    return quartiles(torch.tensor([math.inf if step is None else step for step in steps]))


def quartiles(values: Tensor) -> Tensor:
    """Return the lower quartile, median and upper quartile (3, ...) over the last dimension.

    Values that are not finite count as infinite: worse than any other.
    """
    # quantile() would interpolate between infinities to nan.
    finite = values.double().nan_to_num(math.inf).clamp(max=1e300)
    result = finite.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), dim=-1)
    return result.masked_fill(result > 1e200, math.inf)
