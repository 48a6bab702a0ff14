"""What can be refused before any work: a task whose parts do not fit, an optimizer that fails.

Each ValueError is one line that names the part and the cure.
"""

import gc
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from lab.outcome import as_exceptions, describe, hushed
from lab.training.adapt import MakeOptimizer, depends_on_lr, lr_keyword, set_mode
from lab.training.check_data import checked_data, n_checked, served
from lab.training.datasets import CannotJoin, first, head, joined
from lab.training.runs import Training, state_of
from lab.training.schedules import Schedule, schedulers_of

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.utils._pytree import tree_leaves

from tasks import Task
from training import evaluating, train

M = TypeVar("M")  # makes an optimizer, or is a space of such


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
    if not (task.target is None or isinstance(task.target, int | float)):
        raise ValueError(f"its target is {task.target!r}, and has to be a number")
    if isinstance(task.make_net, nn.Module):
        raise ValueError("its make_net is a net: write `lambda: ...`, which makes a new one")
    if isinstance(task.loss, type):
        name = task.loss.__name__
        raise ValueError(f"its loss is the class {name}: write {name}()")
    if not isinstance(task.num_workers, int) or task.num_workers < 0:
        raise ValueError(f"its num_workers is {task.num_workers!r}, and has to be 0 or more")
    if task.collate_fn is not None and not callable(task.collate_fn):
        raise ValueError("its collate_fn is no function")
    for name in ("make_data", "make_net", "loss"):
        if not callable(getattr(task, name)):
            value = type(getattr(task, name)).__name__
            raise ValueError(f"its {name} is a {value}, and has to be a function")
    if isinstance(task.loss, nn.Module) and next(task.loss.parameters(), None) is not None:
        raise ValueError("its loss has parameters, which nobody trains: have the net hold them")


def checked_net(task: Task, training: Training) -> nn.Module:
    """Return the net; refuse one that has no weights yet, or shares them with the next one."""
    try:
        with as_exceptions():
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
    """Refuse data that net or loss do not take, in all mini-batches that are looked at."""
    sets = {"training": training.dataset, "held-out": training.held_out}
    for which, dataset in sets.items():
        n_finite = n_batches = 0
        part = head(dataset, n_checked(task, dataset))
        for n, x, y in served(task, part, which):
            with torch.no_grad(), evaluating(net), blaming_the_size(n, part, task.batch_size):
                loss = checked_loss(task, net, x, y, which)
            n_batches += 1
            n_finite += bool(loss.isfinite())
        if n_finite == 0:
            raise ValueError(
                f"its loss is not finite before any step, on the {which} set, but {loss.item()}: "
                "scale x and y"
            )
        if which == "training" and n_finite < n_batches:
            raise ValueError(
                f"its loss is not finite on {n_batches - n_finite} of {n_batches} mini-batches "
                "before any step: where it leaves samples out, take a larger --batch-size"
            )


@contextmanager
def blaming_the_size(n: int, dataset: Any, batch_size: int) -> Iterator[None]:
    """Have a refusal say that it is a smaller mini-batch, of `n` samples, or one of one, if so."""
    try:
        yield
    except ValueError as error:
        if n >= min(batch_size, len(dataset)) > 1:
            raise
        which = f"a mini-batch of {n} of {len(dataset)} samples fails"
        raise ValueError(f"{which}: {error}; try another --batch-size") from error


def checked_loss(task: Task, net: nn.Module, x: Any, y: Any, which: str) -> Tensor:
    """Return the loss of a mini-batch; refuse what net or loss do not take."""
    for name, part in (("x", x), ("y", y)):
        leaves = [leaf for leaf in tree_leaves(part) if isinstance(leaf, Tensor)]
        if not all(leaf.isfinite().all() for leaf in leaves):
            raise ValueError(
                f"its data are not all finite: {name} has nan or infinity in the {which} set"
            )
    before = versions(x, y)
    outputs: Any
    try:
        with as_exceptions():
            outputs = net(x)
    except Exception as error:
        raise ValueError(f"its net cannot take the {which} set: {describe(error)}") from error
    loss: Any
    try:
        with as_exceptions():
            loss = task.loss(outputs, y)
    except Exception as error:
        if isinstance(error, UserWarning) and str(error).startswith("Using a "):
            raise ValueError(f"its net has {shapes_in_words(outputs, y)}") from None
        raise ValueError(
            f"its loss cannot take outputs and targets of the {which} set: {describe(error)}"
            f"{range_in_words(outputs, y)}"
        ) from error
    if versions(x, y) != before:
        raise ValueError(
            "its net or its loss changes the data in place, as `x *= 2` or `inplace=True` does: "
            "write `x = 2 * x`"
        )
    if not isinstance(loss, Tensor) or loss.ndim:
        shape = f" but of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else ""
        raise ValueError(f"its loss is not a scalar tensor{shape}")
    if not isinstance(outputs, Tensor) or not isinstance(y, Tensor):
        return loss
    if outputs.numel() == y.numel() and outputs.shape != y.shape:
        singles = [task.loss(outputs[i : i + 1], y[i : i + 1]) for i in range(len(y))]
        if not torch.isclose(torch.stack(singles).mean(), loss, rtol=1e-3):  # samples got mixed
            raise ValueError(f"its net has {shapes_in_words(outputs, y)}")
    return loss


def versions(*data: Any) -> list[int]:
    """Return how often each tensor of the data has been changed in place."""
    leaves = [leaf for leaf in tree_leaves(data) if isinstance(leaf, Tensor)]
    return [leaf._version for leaf in leaves if not leaf.is_inference()]  # which keep no count


def shapes_in_words(outputs: Tensor, y: Tensor) -> str:
    return f"outputs of shape {tuple(outputs.shape)} for targets of {tuple(y.shape)}"


def range_in_words(outputs: object, y: object) -> str:
    """Return that there are targets without a score, if that is so."""
    if not isinstance(outputs, Tensor) or not isinstance(y, Tensor):
        return ""
    if outputs.ndim < 2 or y.is_floating_point():
        return ""
    n_classes = outputs.shape[1]
    if not ((y < 0) | (y >= n_classes)).any():
        return ""
    classes = f"its net has scores for the classes 0 to {n_classes - 1}"
    return f": {classes}, and y goes from {y.min()} to {y.max()}"


def check_gradient(task: Task, net: nn.Module, training: Training) -> None:
    """Refuse a loss without a gradient, a sum, and a last mini-batch that is too small."""
    n = min(max(1, task.batch_size // 2), len(training.dataset))
    x, y = first(task, training.dataset, n)
    with torch.no_grad(), evaluating(net), suppress(CannotJoin):
        once = task.loss(net(x), y)
        twice = task.loss(net(joined([x, x], [n, n])), joined([y, y], [n, n]))
        if once != 0 and abs(twice - 2 * once) < 1e-3 * abs(once):
            raise ValueError(
                "its loss is a sum, which grows with the mini-batch: take the mean over samples"
            )
    with blaming_the_size(task.batch_size, training.dataset, task.batch_size):
        moves = check_backward(task, net, *first(task, training.dataset, task.batch_size))
    moves |= check_last_batch(task, training)
    part = head(training.dataset, n_checked(task, training.dataset))
    batches = served(task, part, "training")  # one of them may be balanced, as by an l1_loss
    if not moves and not any(check_backward(task, net, x, y) for _, x, y in batches):
        raise ValueError("the gradient of its loss is zero everywhere: no optimizer can lower it")


def check_last_batch(task: Task, training: Training) -> bool:
    """Do `check_backward` with the last mini-batch: batch norm refuses one of one sample."""
    net = training.make_net(task)
    n_samples = len(training.dataset)
    batch_size = min(task.batch_size, n_samples)
    n = n_samples % batch_size or batch_size
    with blaming_the_size(n, training.dataset, batch_size):
        return check_backward(task, net, *first(task, training.dataset, n))


def check_backward(task: Task, net: nn.Module, x: Any, y: Any) -> bool:
    """Tell whether the gradient on this mini-batch is not all zero; refuse a loss without one."""
    try:
        with as_exceptions():
            loss = task.loss(net(x), y)
            has_gradient = loss.requires_grad
            if has_gradient:
                loss.backward()
    except Exception as error:
        raise ValueError(f"its net cannot be trained: {describe(error)}") from error
    if not has_gradient:
        raise ValueError("its loss has no gradient: it does not depend on its net's parameters")
    grads = [param.grad for param in net.parameters() if param.grad is not None]
    return any(bool(grad.to_dense().any()) for grad in grads)


# ---------------------------------------------------------------- optimizers


class UnusableError(ValueError):
    """Why an optimizer cannot do what is asked of it."""


def take_a_step(task: Task, training: Training, make_optimizer: MakeOptimizer) -> None:
    """Take one step, on one mini-batch, so that an optimizer's errors show before any work.

    Then run its schedule to the end: it may be too short.
    """
    names_its_lr = getattr(make_optimizer, "has_own_lr", False)
    if not (training.lr is None or names_its_lr) and not (
        lr_keyword(make_optimizer) and depends_on_lr(make_optimizer)
    ):
        raise UnusableError(
            "its steps do not depend on an lr, so there are no rates of it to compare"
        )
    schedulers = schedulers_of(make_optimizer)
    if schedulers and not depends_on_lr(make_optimizer, in_group=True):
        raise UnusableError(
            "a schedule moves the lr of its param groups, which its steps do not use"
        )
    net = training.make_net(task)
    optimizer = training.make_optimizer(make_optimizer, net)
    set_mode(optimizer, "train")
    steps_per_epoch = math.ceil(len(training.dataset) / task.batch_size)
    schedule = Schedule(schedulers, optimizer, steps_per_epoch)
    batches = [first(task, training.dataset, task.batch_size)]
    losses = list(train(net, optimizer, batches, task.loss, epochs=1))
    for _ in range(task.epochs * steps_per_epoch if schedulers else 0):
        schedule.step(losses[-1])


def check_optimizers(optimizers: Mapping[str, M], take_a_step: Callable[[M], object]) -> None:
    """Take a step with each of them; ValueError passes on why one fails."""
    # The first optimizer makes torch import its compiler: with what is here already, some
    # 300,000 objects that live until the end. A garbage collector that walks over them again
    # and again, and once more at exit, costs a fifth of the start-up time.
    gc.disable()
    try:
        for label, make_optimizer in optimizers.items():
            name = getattr(make_optimizer, "call", label)
            try:
                with hushed(), as_exceptions():
                    take_a_step(make_optimizer)
            except UnusableError as error:
                raise ValueError(f"{name}: {error}") from error
            except Exception as error:  # whatever an optimizer may raise
                is_muon = "Muon(" in name and "|" not in name
                hint = '; let another move the rest: "Muon | AdamW"' if is_muon else ""
                raise ValueError(f"{name} does not work here: {describe(error)}{hint}") from error
    finally:
        gc.freeze()
        gc.enable()
