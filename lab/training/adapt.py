"""Optimizers as people write them: `step` without a closure, the learning rate under any name.

Those of torch.optim and of optimizers/ are left as they are. Of all others, what has to be known is
found out on a scratch problem, a sum of squares of six numbers.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial, partialmethod
from types import MethodType
from typing import Any, Literal, TypeAlias
from unittest import mock

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

# Makes an optimizer from a net's parameters, or from param groups, as those of torch.optim do.
MakeOptimizer: TypeAlias = Callable[..., Optimizer]

LR_KEYWORDS = ("lr", "learning_rate", "step_size", "eta")  # as constructors name it

# How an optimizer steps: by a closure that it calls; after a backward pass, as in most textbooks;
# or by a closure whose gradients have a graph of their own, for second derivatives.
Manner: TypeAlias = Literal["closure", "textbook", "graph"]
KNOWN = "torch.optim.", "optimizers.", "lab."  # whose classes step as torch's own do
manners: dict[type, Manner] = {}  # of the classes that were tried


def lr_keyword(make_optimizer: MakeOptimizer) -> str | None:
    """Return how an optimizer's constructor names the learning rate; None if it has none."""
    named = getattr(make_optimizer, "optimizer_class", make_optimizer)
    try:
        parameters = inspect.signature(named).parameters
    except (TypeError, ValueError):  # no Python function
        return None
    return next((name for name in LR_KEYWORDS if name in parameters), None)


def make(
    make_optimizer: MakeOptimizer,
    params: Sequence[Tensor] | Sequence[dict[str, Any]],
    lr: float | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Optimizer:
    """Return the optimizer of these parameters or groups, with this lr where one is given.

    Where its class names an lr, it comes as an argument, as in any script; else in a param group.
    The `settings`, other hyperparameters by name, come as arguments.
    """
    if lr is not None:
        if keyword := lr_keyword(make_optimizer):
            with_lr = getattr(make_optimizer, "with_lr", None)
            make_optimizer = with_lr(lr) if with_lr else partial(make_optimizer, **{keyword: lr})
        elif params and isinstance(params[0], Tensor):
            params = [{"params": list(params), "lr": lr}]
    optimizer = make_optimizer(params, **(settings or {}))
    if is_known(optimizer):
        return optimizer
    if type(optimizer) not in manners:
        manners[type(optimizer)] = manner_of(make_optimizer)
    return adapted(optimizer, manners[type(optimizer)])


def make_for(
    make_optimizer: MakeOptimizer,
    net: nn.Module,
    lr: float | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Optimizer:
    """Return a net's optimizer, as `make` does; one that goes by the layers is told the net."""
    of_net = getattr(make_optimizer, "of_net", None)
    make_optimizer = of_net(net) if of_net else make_optimizer
    return make(make_optimizer, list(net.parameters()), lr, settings)


def is_known(optimizer: Optimizer) -> bool:
    """Tell whether it steps as torch's own do."""
    return f"{type(optimizer).__module__}.".startswith(KNOWN)


def adapted(optimizer: Optimizer, manner: Manner) -> Optimizer:
    """Return the optimizer, whose `step(closure)` does what that of torch.optim does."""
    own_step: Callable[..., Any] = optimizer.step
    graph = keeping_graph if manner == "graph" else nullcontext

    def step(self: Optimizer, closure: Callable[[], Tensor] | None = None) -> Any:
        if closure is None:
            return own_step()
        losses: list[Tensor] = []

        def recorded() -> Tensor:
            with torch.enable_grad(), graph():
                losses.append(closure())
            return losses[-1]

        if manner == "textbook":
            recorded()
            own_step()
            return losses[0]
        returned = own_step(recorded)
        if not losses:
            raise RuntimeError("step has not called its closure, which computes the gradients")
        return returned if isinstance(returned, Tensor) else losses[0]  # some return a float

    vars(optimizer)["step"] = MethodType(step, optimizer)
    return optimizer


@contextmanager
def keeping_graph() -> Iterator[None]:
    """Have `backward` make gradients that can be differentiated once more."""
    backward = partialmethod(Tensor.backward, create_graph=True)
    with warnings.catch_warnings(), mock.patch.object(Tensor, "backward", backward):
        warnings.filterwarnings("ignore", "Using backward.* with create_graph=True")
        yield


def set_mode(optimizer: Optimizer, mode: Literal["train", "eval"]) -> None:
    """Call `optimizer.train()` or `optimizer.eval()`, where an optimizer has both.

    Schedule-Free optimizers take gradients at one point and are judged at another: Defazio et al.,
    "The Road Less Scheduled", arXiv:2405.15682.
    """
    if all(callable(getattr(optimizer, name, None)) for name in ("train", "eval")):
        getattr(optimizer, mode)()


@contextmanager
def judged(optimizer: Optimizer) -> Iterator[None]:
    """Have the parameters in the block where they are judged: see `set_mode`.

    Afterwards they, and what draws random numbers, are to the bit as if nothing had been.
    """
    params: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    before = [param.detach().clone() for param in params]
    device = params[0].device
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        set_mode(optimizer, "eval")
        yield
    set_mode(optimizer, "train")
    with torch.no_grad():
        for param, value in zip(params, before, strict=True):
            param.copy_(value)  # the way to and fro has rounded


# ---------------------------------------------------------------- a scratch problem


def scratch(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """Return the parameters of a small problem."""
    return [nn.Parameter(torch.ones(2, 2, dtype=dtype)), nn.Parameter(torch.ones(2, dtype=dtype))]


def scratch_closure(params: list[nn.Parameter], calls: list[Tensor]) -> Callable[[], Tensor]:
    """Return a closure of the problem that counts its calls."""

    def closure() -> Tensor:
        for param in params:
            param.grad = None
        with torch.enable_grad():
            loss = torch.stack([param.square().sum() for param in params]).sum()
        calls.append(loss)
        loss.backward()
        return loss

    return closure


def manner_of(make_optimizer: MakeOptimizer) -> Manner:
    """Find out how an optimizer steps."""
    with torch.random.fork_rng(devices=[]):
        params, calls = scratch(), list[Tensor]()
        try:
            optimizer = make_optimizer(params)
        except Exception:  # it does not take these: the trial on the task will tell
            return "closure"
        set_mode(optimizer, "train")
        step: Callable[..., Any] = optimizer.step
        try:
            step(scratch_closure(params, calls))
        except Exception as error:
            if calls and "does not require grad" in str(error) and has_no_graph(params):
                return "graph"
        return "closure" if calls else "textbook"


def has_no_graph(params: list[nn.Parameter]) -> bool:
    """Tell whether there are gradients, and none that could be differentiated."""
    grads = [param.grad for param in params if param.grad is not None]
    return bool(grads) and not any(grad.requires_grad for grad in grads)


def needs_graph(make_optimizer: MakeOptimizer) -> bool:
    """Tell whether an optimizer differentiates the gradients once more."""
    try:
        return manners.get(type(make(make_optimizer, scratch(), 0.1))) == "graph"
    except Exception:
        return False


def depends_on_lr(make_optimizer: MakeOptimizer, in_group: bool = False) -> bool:
    """Tell whether an optimizer's steps depend on its learning rate.

    As it is given, or `in_group`: as a scheduler moves it in the param groups.
    """
    ends = []
    for factor in (1, 2):
        params = scratch(torch.float64)
        with torch.random.fork_rng(devices=[]):
            try:
                optimizer = make(make_optimizer, params, 0.01 if in_group else 0.01 * factor)
                if is_known(optimizer):
                    return True
                for group in optimizer.param_groups if in_group else []:
                    if "lr" not in group:
                        return False
                    group["lr"] *= factor
                set_mode(optimizer, "train")
                for _ in range(2):
                    step: Callable[..., Any] = optimizer.step
                    step(scratch_closure(params, []))
            except Exception:  # it does not take these
                return True
        ends.append([param.detach() for param in params])
    return not all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
