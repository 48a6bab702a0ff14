"""What can be refused before any work: a task whose parts do not fit, an optimizer that fails."""

import gc
import math
from collections.abc import Callable, Mapping
from typing import TypeVar

from lab.outcome import describe
from lab.training.runs import MakeOptimizer, Training
from lab.training.schedules import Schedule, schedulers_of

from torch import Tensor
from torch.utils.data import TensorDataset

from tasks import Task
from training import train

M = TypeVar("M", bound=MakeOptimizer)


def check_task(task: Task, seed: int) -> Training:
    """Return the training from a seed; ValueError if data, net and loss do not go together."""
    try:
        data = task.make_data(seed)
    except Exception as error:  # a user's own function may fail in any way
        raise ValueError(f"its data cannot be made: {describe(error)}") from error
    if not (isinstance(data, tuple) and len(data) == 2 and all(map(is_x_and_y, data))):
        raise ValueError("make_data(seed) has to return two TensorDatasets, each of x and y")
    (x, y), (held_out_x, held_out_y) = (dataset.tensors for dataset in data)
    for one, other in ((x, held_out_x), (y, held_out_y)):
        if not len(one) or not len(other):
            raise ValueError("one of its data sets is empty")
        if one.shape[1:] != other.shape[1:] or one.dtype != other.dtype:
            raise ValueError("its data sets, for training and held out, are not of one shape")
        if not one.isfinite().all() or not other.isfinite().all():
            raise ValueError("its data are not all finite")

    training = Training(seed, *data)
    x, y = x[: task.batch_size], y[: task.batch_size]
    try:
        net = training.make_net(task)
        outputs = net(x)
        net.eval()(held_out_x[: task.batch_size])
    except Exception as error:
        raise ValueError(f"its net cannot take the data: {describe(error)}") from error
    if outputs.numel() == y.numel() and outputs.shape != y.shape:
        shapes = f"outputs of shape {tuple(outputs.shape)} for targets of {tuple(y.shape)}"
        raise ValueError(f"its net has {shapes}")
    try:
        loss = task.loss(outputs, y)
    except Exception as error:
        raise ValueError(f"its loss cannot take outputs and targets: {describe(error)}") from error
    if not isinstance(loss, Tensor) or loss.ndim:
        shape = f" but of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else ""
        raise ValueError(f"its loss is not a scalar tensor{shape}")
    if not loss.requires_grad:
        raise ValueError("its loss does not depend on the parameters of its net")
    return training


def is_x_and_y(dataset: object) -> bool:
    return isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2


def take_a_step(task: Task, training: Training, make_optimizer: MakeOptimizer) -> None:
    """Take one step, on one mini-batch, so that an optimizer's errors show before any work.

    Then run its schedule to the end: it may be too short.
    """
    net = training.make_net(task)
    optimizer = training.make_optimizer(make_optimizer, net)
    steps_per_epoch = math.ceil(len(training.dataset) / task.batch_size)
    schedule = Schedule(schedulers_of(make_optimizer), optimizer, steps_per_epoch)
    batches = [training.dataset[: task.batch_size]]
    (loss,) = train(net, optimizer, batches, task.loss, epochs=1)
    for _ in range(task.epochs * steps_per_epoch if schedule.schedulers else 0):
        schedule.step(loss)


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
