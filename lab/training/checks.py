"""What can be refused before any work: a task whose parts do not fit, an optimizer that fails.

Each ValueError is one line that names the part and the cure.
"""

import gc
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lab.outcome import describe
from lab.training.adapt import MakeOptimizer, depends_on_lr, lr_keyword, set_mode
from lab.training.runs import Training, state_of
from lab.training.schedules import Schedule, schedulers_of

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.utils.data import TensorDataset

from data import Datasets, make_loader
from tasks import Task
from training import evaluating, train

M = TypeVar("M", bound=MakeOptimizer)

MAX_SAMPLES = 10_000  # of each data set: more are not looked at


def check_task(task: Task, seed: int) -> Training:
    """Return the training from a seed; ValueError if data, net and loss do not go together."""
    check_fields(task)
    training = Training(seed, *checked_data(task, seed))
    net = checked_net(task, training)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Using a (target|input) size")  # they broadcast
        check_outputs(task, net, training)
        check_gradient(task, net, training)
    return training


def check_fields(task: Task) -> None:
    """Refuse fields that are something else than they have to be."""
    for name in ("epochs", "batch_size"):
        value = getattr(task, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"its {name} is {value!r}, and has to be a whole number of 1 or more")
    if not isinstance(task.target, int | float):
        raise ValueError(f"its target is {task.target!r}, and has to be a number")
    if isinstance(task.make_net, nn.Module):
        raise ValueError("its make_net is a net: write `lambda: ...`, which makes a new one")
    if isinstance(task.loss, type):
        raise ValueError(f"its loss is the class {task.loss.__name__}: add brackets, `()`")
    for name in ("make_data", "make_net", "loss"):
        if not callable(getattr(task, name)):
            value = type(getattr(task, name)).__name__
            raise ValueError(f"its {name} is a {value}, and has to be a function")
    if isinstance(task.loss, nn.Module) and next(task.loss.parameters(), None) is not None:
        raise ValueError("its loss has parameters, which nobody trains: have the net hold them")


def checked_data(task: Task, seed: int) -> Datasets:
    """Return the data of a seed; refuse what is not two sets of finite x and y."""
    data: Any
    try:
        data = task.make_data(seed)
    except Exception as error:  # a user's own function may fail in any way
        raise ValueError(f"its data cannot be made: {describe(error)}") from error
    if not (isinstance(data, tuple | list) and len(data) == 2 and all(map(is_x_and_y, data))):
        raise ValueError(
            "make_data(seed) has to return two TensorDatasets, each of x and y; of other data make "
            "them by TensorDataset(x, y)"
        )
    training_set, held_out = data
    for name, one, other in zip("xy", training_set.tensors, held_out.tensors, strict=True):
        if not len(one) or not len(other):
            raise ValueError("one of its data sets is empty")
        if one.shape[1:] != other.shape[1:] or one.dtype != other.dtype:
            raise ValueError("its data sets, for training and held out, are not of one shape")
        for tensor in (one, other):
            if not (finite := tensor.isfinite()).all():
                rows = (~finite.reshape(len(tensor), -1)).any(1)
                raise ValueError(
                    f"its data are not all finite: {name} has nan or infinity in {int(rows.sum())} "
                    f"of {len(rows)} rows, first in row {int(rows.int().argmax())}"
                )
    return training_set, held_out


def is_x_and_y(dataset: object) -> bool:
    return isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2


def checked_net(task: Task, training: Training) -> nn.Module:
    """Return the net; refuse one that has no weights yet, or shares them with the next one."""
    try:
        net, again = training.make_net(task), training.make_net(task)
    except Exception as error:
        raise ValueError(f"its net cannot be made: {describe(error)}") from error
    if not isinstance(net, nn.Module):
        raise ValueError(f"its make_net() returns a {type(net).__name__}, and no nn.Module")
    if any(isinstance(param, UninitializedParameter) for param in net.parameters()):
        raise ValueError(
            "its net has a lazy layer: have make_net call it once, as net(torch.zeros(1, ...))"
        )
    one, other = state_of(net), state_of(again)
    if any(one[name] is other.get(name) or shares(one[name], other.get(name)) for name in one):
        raise ValueError("make_net() has to return a new net each time: it shares its weights")
    for name, tensor in one.items():
        if name not in other or not torch.equal(tensor, other[name]):
            raise ValueError(
                f"make_net() gives other first weights each time, in {name}: draw them by torch's "
                "generator, which is seeded before"
            )
    if not any(param.requires_grad for param in net.parameters()):
        raise ValueError("its net has no parameters to train")
    return net


def shares(one: Tensor, other: Tensor | None) -> bool:
    """Tell whether two tensors share their memory."""
    return other is not None and one.numel() > 0 and one.data_ptr() == other.data_ptr() != 0


def check_outputs(task: Task, net: nn.Module, training: Training) -> None:
    """Refuse data that net or loss do not take: all mini-batches, of at most MAX_SAMPLES."""
    sets = {"training": training.dataset, "held-out": training.held_out}
    for which, dataset in sets.items():
        n_finite = n_batches = 0
        part = TensorDataset(*(tensor[:MAX_SAMPLES] for tensor in dataset.tensors))
        for x, y in make_loader(part, task.batch_size):
            with torch.no_grad(), evaluating(net):
                try:
                    outputs = net(x)
                except Exception as error:
                    raise ValueError(f"its net cannot take the data: {describe(error)}") from error
                loss = checked_loss(task, outputs, y, which)
            n_batches += 1
            n_finite += bool(loss.isfinite())
        if n_finite == 0:
            raise ValueError(
                f"its loss is {loss.item()} before any step, on the {which} set: scale x and y"
            )
        if which == "training" and n_finite < n_batches:
            raise ValueError(
                f"its loss is not finite on {n_batches - n_finite} of {n_batches} mini-batches "
                "before any step: where it leaves samples out, take a larger --batch-size"
            )


def checked_loss(task: Task, outputs: Any, y: Tensor, which: str) -> Tensor:
    """Return the loss; refuse one that does not take these, or is no mean."""
    if isinstance(outputs, Tensor) and outputs.numel() == y.numel() and outputs.shape != y.shape:
        raise ValueError(f"its net has {shapes_in_words(outputs, y)}")
    try:
        loss: Any = task.loss(outputs, y)
    except UserWarning:
        raise ValueError(f"its net has {shapes_in_words(outputs, y)}") from None
    except Exception as error:
        raise ValueError(
            f"its loss cannot take outputs and targets of the {which} set: {describe(error)}"
        ) from error
    if not isinstance(loss, Tensor) or loss.ndim:
        shape = f" but of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else ""
        raise ValueError(f"its loss is not a scalar tensor{shape}")
    return loss


def shapes_in_words(outputs: Tensor, y: Tensor) -> str:
    return f"outputs of shape {tuple(outputs.shape)} for targets of {tuple(y.shape)}"


def check_gradient(task: Task, net: nn.Module, training: Training) -> None:
    """Refuse a loss without a gradient, a sum, and a last mini-batch that is too small."""
    x, y = training.dataset[: task.batch_size]
    with torch.no_grad(), evaluating(net):
        once = task.loss(net(x), y)
        twice = task.loss(net(torch.cat([x, x])), torch.cat([y, y]))
    if once != 0 and abs(twice - 2 * once) < 1e-3 * abs(once):
        raise ValueError(
            "its loss is a sum, which grows with the mini-batch: take the mean over samples"
        )
    check_backward(task, net, x, y)
    n_samples = len(training.dataset)
    if rest := n_samples % min(task.batch_size, n_samples):
        try:
            check_backward(task, net, *training.dataset[:rest])
        except ValueError as error:
            raise ValueError(
                f"the last of its mini-batches has {rest} of {n_samples} samples, and fails: "
                f"{error}; take another --batch-size"
            ) from error


def check_backward(task: Task, net: nn.Module, x: Tensor, y: Tensor) -> None:
    """Refuse a loss that has no gradient on this mini-batch."""
    try:
        net.zero_grad()
        loss = task.loss(net(x), y)
        if not loss.requires_grad:
            raise ValueError("its loss does not depend on the parameters of its net")
        loss.backward()
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"its net cannot be trained: {describe(error)}") from error
    grads = [param.grad for param in net.parameters() if param.grad is not None]
    if not any(grad.to_dense().any() for grad in grads):
        raise ValueError("the gradient of its loss is zero everywhere: no optimizer can lower it")


def check_same_twice(task: Task, training: Training) -> None:
    """Refuse data that are others each time they are made from the same seed."""
    again = task.make_data(training.seed)
    for one, other in zip((training.dataset, training.held_out), again, strict=True):
        for a, b in zip(one.tensors, other.tensors, strict=True):
            if a.shape != b.shape or not torch.equal(a.cpu(), b.cpu()):
                raise ValueError(
                    f"make_data({training.seed}) returns other data each time: whatever is random "
                    "in it has to come from a generator of the seed, as in data.split"
                )


# ---------------------------------------------------------------- optimizers


def take_a_step(task: Task, training: Training, make_optimizer: MakeOptimizer) -> None:
    """Take one step, on one mini-batch, so that an optimizer's errors show before any work.

    Then run its schedule to the end: it may be too short.
    """
    net = training.make_net(task)
    optimizer = training.make_optimizer(make_optimizer, net)
    set_mode(optimizer, "train")
    steps_per_epoch = math.ceil(len(training.dataset) / task.batch_size)
    schedule = Schedule(schedulers_of(make_optimizer), optimizer, steps_per_epoch)
    batches = [training.dataset[: task.batch_size]]
    losses = list(train(net, optimizer, batches, task.loss, epochs=1))
    for _ in range(task.epochs * steps_per_epoch if schedule.schedulers else 0):
        schedule.step(losses[-1])
    if schedule.schedulers and not depends_on_lr(make_optimizer, in_group=True):
        raise ValueError("its steps do not use the lr of its param group, which a schedule moves")
    if training.lr is not None and not (
        lr_keyword(make_optimizer) and depends_on_lr(make_optimizer)
    ):
        raise ValueError("its steps do not depend on an lr: there are no rates of it to compare")


def check_optimizers(optimizers: Mapping[str, M], take_a_step: Callable[[M], object]) -> None:
    """Take a step with each of them; ValueError passes on why one fails."""
    # The first optimizer makes torch import its compiler: with what is here already, some
    # 300,000 objects that live until the end. A garbage collector that walks over them again
    # and again, and once more at exit, costs a fifth of the start-up time.
    gc.disable()
    try:
        for label, make_optimizer in optimizers.items():
            try:
                take_a_step(make_optimizer)
            except Exception as error:  # whatever an optimizer may raise
                name = getattr(make_optimizer, "call", label)
                raise ValueError(f"{name} does not work here: {describe(error)}") from error
    finally:
        gc.freeze()
        gc.enable()
