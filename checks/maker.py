"""A class with its hyperparameters, the parameters it takes, and one step of it."""

import inspect
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.outcome import as_exceptions
from lab.training.adapt import set_mode

import torch
from torch import Tensor
from torch.optim import Optimizer

LR = 0.01  # where a class has no lr of its own, or two are to have the same
MANY = 1000  # calls of the closure in one step: it would never end


@dataclass(frozen=True)
class Maker:
    """A class, and the hyperparameters it is made with. Called with parameters, it is made."""

    label: str
    optimizer_class: type
    keywords: dict[str, Any] = field(default_factory=dict)

    @as_exceptions()
    def __call__(self, params: Any, **keywords: Any) -> Optimizer:
        optimizer = self.optimizer_class(params, **(self.keywords | keywords))
        set_mode(optimizer, "train")
        return optimizer

    @property
    def parameters(self) -> list[inspect.Parameter]:
        """What its constructor takes, after the parameters to be trained."""
        try:
            return list(inspect.signature(self.optimizer_class).parameters.values())[1:]
        except (TypeError, ValueError):  # without a signature, as some of C
            return []

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """All that its constructor takes by name, with the values they have here."""
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        named = [one for one in self.parameters if one.kind in kinds]
        return {one.name: one.default for one in named} | self.keywords

    @property
    def takes_any_keyword(self) -> bool:
        return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in self.parameters)

    @property
    def missing(self) -> list[str]:
        """The hyperparameters, but for lr, that have to be given and are not."""
        values = self.hyperparameters.items()
        return [name for name, value in values if value is inspect.Parameter.empty and name != "lr"]

    def with_keywords(self, **keywords: Any) -> "Maker":
        return Maker(self.label, self.optimizer_class, self.keywords | keywords)

    def with_a_rate(self) -> "Maker":
        """Return it with lr=LR where its lr has to be given and is not."""
        if self.hyperparameters.get("lr") is inspect.Parameter.empty:
            return self.with_keywords(lr=LR)
        return self


# ---------------------------------------------------------------- what it takes


@dataclass(frozen=True)
class Kind:
    """A kind of parameters: their shapes, by name, and whether their gradients are sparse."""

    shapes: Mapping[str, tuple[int, ...]]
    sparse: bool = False

    def draw(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        tensors = [torch.randn(shape, generator=generator) for shape in self.shapes.values()]
        return [torch.nn.Parameter(tensor.to(dtype)) for tensor in tensors]

    def give(self, param: Tensor, grad: Tensor) -> None:
        param.grad = grad.to_sparse() if self.sparse else grad.clone()


NET = {"w1": (4, 2), "b1": (4,), "w2": (1, 4), "b2": (1,)}
KINDS = [
    Kind(NET | {"scalar": (), "block": (2, 1, 3)}),
    Kind({"w1": (4, 2), "w2": (1, 4), "w3": (3, 3)}),  # as Muon
    Kind({"w1": (4, 2), "w2": (1, 4), "v": (5,)}, sparse=True),  # as SparseAdam
]
ALIKE = Kind({"one": (2, 3), "two": (2, 3)})  # what can have one memory, by mistake


def kind_of(make: Maker) -> Kind:
    """Return the kind of parameters that an optimizer takes: the first with which it can step.

    Where there is none, the error is that of the first.
    """
    errors = []
    for kind in KINDS:
        params = kind.draw()
        for param in params:
            kind.give(param, torch.ones_like(param))
        try:
            take_step(make(params), lambda: torch.tensor(1.0, requires_grad=True))
        except Exception as error:
            errors.append(error)
        else:
            return kind
    raise errors[0]


# ---------------------------------------------------------------- a step


@as_exceptions()
def take_step(optimizer: Optimizer, closure: Callable[[], Any]) -> Any:
    """Take a step, with the closure where the class needs it, or else after a call of it."""
    if needs_closure(optimizer):
        return optimizer.step(without_end(closure))
    with torch.enable_grad():
        closure()
    return optimizer.step()


def needs_closure(optimizer: Optimizer) -> bool:
    parameters = list(inspect.signature(optimizer.step).parameters.values())
    return bool(parameters) and parameters[0].default is inspect.Parameter.empty


def takes_closure(optimizer: Optimizer) -> bool:
    return bool(inspect.signature(optimizer.step).parameters)


def without_end(closure: Callable[[], Any]) -> Callable[[], Any]:
    """Return the closure, which fails where it is called again and again."""
    calls = 0

    def counted() -> Any:
        nonlocal calls
        calls += 1
        if calls > MANY:
            raise RuntimeError(f"the closure is called more than {MANY} times in a step")
        with torch.enable_grad():
            return closure()

    return counted


@contextmanager
def quietly(dtype: torch.dtype = torch.float64) -> Iterator[None]:
    """Work in this dtype, without a word from their code, and leave torch as it was.

    Where the default is float32, torch keeps some numbers of NAdam and ASGD in it. With tensors so
    small, threads only wait for each other.
    """
    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(dtype)
    torch.set_num_threads(1)
    try:
        with (
            warnings.catch_warnings(),
            torch.random.fork_rng(devices=[]),
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(before)
        torch.set_num_threads(threads)
