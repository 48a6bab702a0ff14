"""How steep a loss curves along a training, and how steep each optimizer can bear it.

The sharpness is the largest eigenvalue of the Hessian of the loss over the training set. Where it
is above an optimizer's limit, steps along its eigenvector grow: on a quadratic the training
diverges, and a net has to go where it is flatter. Cohen et al., "Gradient descent on neural
networks typically occurs at the edge of stability", arXiv:2103.00065, and for those that divide by
a second moment "Adaptive gradient methods at the edge of stability", arXiv:2207.14484.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from lab.outcome import Outcome, Progress, as_exceptions, keeping, no_progress
from lab.training.adapt import MakeOptimizer, set_mode
from lab.training.datasets import first, loader_of
from lab.training.evaluation import PART_BYTES, bytes_per_sample
from lab.training.runs import Training, state_of
from lab.training.schedules import Schedule, schedulers_of

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import SGD, Adam, Optimizer, RMSprop

from tasks import Task
from training import evaluating, train

MOMENTS = 32  # of a training at which the sharpness is measured, evenly spaced
TOLERANCE, MAX_PRODUCTS = 1e-5, 64  # of Lanczos' method
ALIKE = 1e-3  # as a share: two changes of a gradient that differ by rounding alone


# ---------------------------------------------------------------- the limit


def limit_of(optimizer: Optimizer) -> float | None:
    """Return the sharpness above which the optimizer's steps grow; None where it is not known.

    Of those that divide by a second moment it is the limit of the preconditioned sharpness, that of
    the Hessian divided by `divisor`.
    """
    group = optimizer.param_groups[0]
    lr, decay = float(group.get("lr", math.nan)), float(group.get("weight_decay", 0))
    if group.get("maximize"):
        return None
    if type(optimizer) is SGD:
        beta = group["momentum"]
        gain = 1 + 2 * beta if group["nesterov"] else 1 - group["dampening"]
        return (2 + 2 * beta) / (gain * lr) - decay if gain > 0 else None
    if type(optimizer) is Adam and not decay and not group["amsgrad"]:
        beta = group["betas"][0]
        return (2 + 2 * beta) / ((1 - beta) * lr)
    if type(optimizer) is RMSprop and not decay and not group["centered"]:
        return (2 + 2 * group["momentum"]) / lr
    return None


def stable_lr(optimizer: Optimizer, curvature: float) -> float | None:
    """Return the lr up to which SGD's steps on a quadratic shrink, all else as it has it.

    `curvature` is the largest eigenvalue of its Hessian. With heavy-ball momentum the lr is
    2 (1 + momentum) / curvature: Polyak, "Some methods of speeding up the convergence of iteration
    methods", 1964. It is 0 where the momentum is 1 or more. None of other optimizers.
    """
    limit = limit_of(optimizer) if type(optimizer) is SGD else None
    if limit is None:
        return None
    group = optimizer.param_groups[0]
    lr, decay = float(group["lr"]), float(group["weight_decay"])
    return lr * (limit + decay) / (curvature + decay) if group["momentum"] < 1 else 0.0


def divisor(optimizer: Optimizer, params: list[nn.Parameter], grads: list[Tensor]) -> Tensor | None:
    """Return what the next step divides each element by (parameters,), if these are its gradients.

    None where it divides by nothing, or its limit is not known.
    """
    if type(optimizer) not in (Adam, RMSprop) or limit_of(optimizer) is None:
        return None
    group = optimizer.param_groups[0]
    is_adam = type(optimizer) is Adam
    decay, name = (group["betas"][1], "exp_avg_sq") if is_adam else (group["alpha"], "square_avg")
    roots = []
    for param, grad_of_param in zip(params, grads, strict=True):
        state = optimizer.state.get(param, {})
        square = decay * state.get(name, 0) + (1 - decay) * grad_of_param**2
        if is_adam:
            square = square / (1 - decay ** (float(state.get("step", 0)) + 1))
        roots.append(square.sqrt().flatten() + group["eps"])
    return torch.cat(roots)


# ---------------------------------------------------------------- the largest eigenvalue


def largest_eigenvalues(product: Callable[[Tensor], Tensor], starts: Tensor) -> Tensor:
    """Return the largest eigenvalue (n,) of each of n symmetric matrices (size, size).

    `product` multiplies vectors (n, size) by them. It is Lanczos' method, by Rayleigh and Ritz in
    the space of all products so far: until none of the eigenvalues grows by more than `TOLERANCE`.
    Negative ones may be larger in size, as power iteration would find.
    """
    q = starts / starts.norm(dim=1, keepdim=True)
    basis, images = q.unsqueeze(1), product(q).unsqueeze(1)
    largest = (basis * images).sum((1, 2))
    for _ in range(1, min(MAX_PRODUCTS, starts.shape[1])):
        q = images[:, -1:]
        for _ in range(2):  # once leaves rounding errors that grow
            q = q - q @ basis.mT @ basis
        q = q / q.norm(dim=2, keepdim=True).clamp(min=1e-30)
        basis = torch.cat([basis, q], 1)
        images = torch.cat([images, product(q.squeeze(1)).unsqueeze(1)], 1)
        small = basis @ images.mT
        before, largest = largest, torch.linalg.eigvalsh((small + small.mT) / 2)[:, -1]
        if ((largest - before).abs() <= TOLERANCE * largest.abs()).all():
            break
    return largest


@dataclass
class Moment:
    """A net at one step of its training: its parameters and buffers, and what a step divides by."""

    step: int  # so many steps have been taken
    state: dict[str, Tensor]
    divisor: Tensor | None
    limit: float | None


def sharpness(task: Task, training: Training, moments: list[Moment]) -> Tensor:
    """Return the sharpness (moments,) of the loss over the training set: preconditioned if divided.

    With P the matrix of the divisors, that is the largest eigenvalue of P^(-1/2) H P^(-1/2).
    Products with the Hessian H are reverse over reverse, of many moments at once by vmap.
    """
    net = training.make_net(task)
    x, y = first(task, training.dataset, len(training.dataset))
    names = [name for name, param in net.named_parameters() if param.requires_grad]
    shapes = [moments[0].state[name].shape for name in names]

    def loss(theta: Tensor, others: dict[str, Tensor]) -> Tensor:
        parts = theta.split([shape.numel() for shape in shapes])
        weights = {n: p.view(shape) for n, p, shape in zip(names, parts, shapes, strict=True)}
        return task.loss(functional_call(net, weights | others, (x,)), y)

    def product(theta: Tensor, others: dict[str, Tensor], scale: Tensor, v: Tensor) -> Tensor:
        slope = grad(loss)
        return scale * grad(lambda theta: (slope(theta, others) * scale * v).sum())(theta)

    found = []
    with evaluating(net), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # some nets are slow
        size = max(1, int(PART_BYTES / max(1.0, len(y) * bytes_per_sample(net, x))))
        for k in range(0, len(moments), size):
            some = moments[k : k + size]
            states = [moment.state for moment in some]
            thetas = torch.stack([torch.cat([s[n].flatten() for n in names]) for s in states])
            others = {n: torch.stack([s[n] for s in states]) for n in states[0].keys() - set(names)}
            divisors = [
                torch.ones_like(thetas[0]) if m.divisor is None else m.divisor for m in some
            ]
            scales = torch.stack(divisors).rsqrt()
            products = partial(vmap(product), thetas, others, scales)
            generator = torch.Generator().manual_seed(0)
            starts = torch.randn(thetas.shape[1], generator=generator).to(thetas)
            found.append(largest_eigenvalues(products, starts.expand_as(thetas)))
    return torch.cat(found).cpu().double()


def check_curvature(task: Task, training: Training) -> None:
    """Raise ValueError where the sharpness cannot be measured."""
    net = training.make_net(task)
    try:
        sharpness(task, training, [Moment(0, clone(net), None, None)])
    except Exception as error:  # whatever a net or vmap may raise
        words = str(error).strip().partition("\n")[0]
        raise ValueError(f"the curvature of its loss cannot be had: {words}") from error


def curvature_of_quadratic(task: Task, training: Training) -> float | None:
    """Return the sharpness of a loss that is a quadratic of the weights, the same at all of them.

    So is the squared error of a linear net. None of all other losses, and where it cannot be had.
    """
    try:
        with as_exceptions():
            if not is_quadratic(task, training):
                return None
            start = Moment(0, clone(training.make_net(task)), None, None)
            return sharpness(task, training, [start]).item()
    except Exception:  # whatever a net or vmap may raise
        return None


def is_quadratic(task: Task, training: Training) -> bool:
    """Tell whether a mini-batch's loss is a quadratic of the weights, by its gradients.

    Along a step a quadratic's gradient changes by as much as along the same step from elsewhere,
    both random here. The net is as it trains, with dropout and all.
    """
    net = training.make_net(task)
    x, y = first(task, training.dataset, task.batch_size)
    params = [param for param in net.parameters() if param.requires_grad]
    start = parameters_to_vector(params).detach()
    generator = torch.Generator().manual_seed(0)
    step, elsewhere = torch.randn(2, len(start), generator=generator).to(start)

    def gradient(weights: Tensor) -> Tensor:
        vector_to_parameters(weights, params)
        loss = task.loss(net(x), y)
        return parameters_to_vector(torch.autograd.grad(loss, params, materialize_grads=True))

    change = gradient(start + step) - gradient(start)
    other = gradient(elsewhere + step) - gradient(elsewhere)
    return bool(change.norm() > 0 and (change - other).norm() <= ALIKE * change.norm())


def clone(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state_of(net).items()}


# ---------------------------------------------------------------- along a training


@dataclass
class Descent(Outcome):
    """One training: its losses, and the sharpness at some of its steps."""

    seed: int
    lr: float | None
    steps: int = 0  # taken
    losses: list[float] = field(default_factory=list)  # before each step
    moments: list[int] = field(default_factory=list)  # the steps before which it was measured
    sharpness: list[float] = field(default_factory=list)
    limits: list[float | None] = field(default_factory=list)
    is_divided: bool = False  # preconditioned: by what the optimizer divides by

    @property
    def diverged(self) -> bool:
        return any(not math.isfinite(loss) for loss in self.losses[-1:])


def descend(
    task: Task,
    training: Training,
    make_optimizer: MakeOptimizer,
    n_steps: int,
    progress: Progress = no_progress,
) -> Descent:
    """Train a net for so many steps by the loop of training.py, and measure its sharpness."""
    net = training.make_net(task)
    optimizer = training.make_optimizer(make_optimizer, net)
    loader = loader_of(task, training.dataset)
    schedule = Schedule(schedulers_of(make_optimizer), optimizer, len(loader))
    every = math.ceil(n_steps / MOMENTS)
    moments = [moment_of(task, training, net, optimizer, 0)]
    run = Descent(training.seed, optimizer.param_groups[0].get("lr"))
    run.is_divided = moments[0].divisor is not None
    set_mode(optimizer, "train")
    steps = islice(train(net, optimizer, loader, task.loss, n_steps), n_steps)
    with keeping(run), as_exceptions():
        for loss in progress(steps, n_steps, "step"):
            run.losses.append(loss)
            run.steps += 1
            schedule.step(loss)
            if run.steps % every == 0 and run.steps < n_steps and math.isfinite(loss):
                moments.append(moment_of(task, training, net, optimizer, run.steps))
    finite = [moment for moment in moments if is_finite(moment)]
    with keeping(run):
        run.sharpness = sharpness(task, training, finite).tolist() if finite else []
        run.moments = [moment.step for moment in finite]
        run.limits = [moment.limit for moment in finite]
    return run


def moment_of(
    task: Task, training: Training, net: nn.Module, optimizer: Optimizer, step: int
) -> Moment:
    """Return the net as it is, and what the optimizer's next step divides by."""
    params = [param for param in net.parameters() if param.requires_grad]
    divided = None
    if type(optimizer) in (Adam, RMSprop):
        with evaluating(net):
            x, y = first(task, training.dataset, len(training.dataset))
            grads = torch.autograd.grad(task.loss(net(x), y), params)
        divided = divisor(optimizer, params, list(grads))
    return Moment(step, clone(net), divided, limit_of(optimizer))


def is_finite(moment: Moment) -> bool:
    return all(bool(value.isfinite().all()) for value in moment.state.values())
