"""The language that names an optimizer, its schedules, or a task.

[LABEL=]NAME[(keyword=literal, ...)][ + SCHEDULE(keyword=literal, ...)]...
"""

import ast
import difflib
import gc
import importlib
import inspect
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from lab.schedules import RATES, SchedulerSpec, set_the_rate

import torch
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from settings import OPTIMIZERS
from tasks import TASKS, Task


def _classes(module: ModuleType, base: type) -> dict[str, type]:
    """Return the subclasses of `base` that a module offers, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and name.strip("_") != base.__name__
    }


TORCH_CLASSES = _classes(torch.optim, torch.optim.Optimizer)
TORCH_SCHEDULERS = _classes(lr_scheduler, LRScheduler)

# What cannot be written as a literal, and what to do instead.
NOT_LITERALS = {
    "lr_lambda": "write a class in a file of yours instead, and name it as homework.MySchedule",
    "schedulers": "join schedules by + instead: SGD + LinearLR() + CosineAnnealingLR(T_max=12)",
}


@dataclass(frozen=True)
class Spec:
    """An optimizer as named on the command line. Called with a net's parameters, it is made.

    `label` stands in tables and legends; `call` is the full call, and parses back. `schedulers`
    move its learning rate: see lab/schedules.py.
    """

    label: str
    call: str
    optimizer_class: type
    keywords: dict[str, Any]
    schedulers: tuple[SchedulerSpec, ...] = ()

    def __call__(self, params: Iterable) -> torch.optim.Optimizer:
        return self.optimizer_class(params, **self.keywords)

    @property
    def has_own_rate(self) -> bool:
        """Whether its learning rate is named, or set by its schedule."""
        return "lr" in self.keywords or set_the_rate(self.schedulers)


def parse_optimizers(
    texts: Iterable[str], lr: float | None = None, sweeping: bool = False
) -> dict[str, Spec]:
    """Parse specs into {label: Spec}, in order. ValueError names what is wrong, in one line.

    Where a script is `sweeping` over learning rates, none may name its own.
    """
    specs = {}
    for text in texts:
        spec = parse_optimizer(text, lr)
        if spec.label in specs:
            raise ValueError(f"two optimizers are labelled {spec.label!r}; write LABEL={text}")
        if sweeping and spec.has_own_rate:
            names = (
                "names its own lr" if "lr" in spec.keywords else "has a schedule that sets its lr"
            )
            raise ValueError(
                f"{spec.label!r} {names}, but here every rate is tried; try it in "
                "compare_optimizers.py"
            )
        specs[spec.label] = spec
    return specs


def parse_optimizer(text: str, lr: float | None = None) -> Spec:
    """Parse one `[LABEL=]NAME[(keyword=literal, ...)][ + SCHEDULE(keyword=literal, ...)]...`.

    NAME alone is a preset, or else a class of torch.optim, or `module.Class`; a call spells out
    its hyperparameters and takes no preset. `lr` is used where the call names none and the class
    takes one. SCHEDULE is a class of torch.optim.lr_scheduler, or `module.Class`. Only literals are
    accepted and nothing is evaluated; `module` is imported.
    """
    before, equals, after = text.partition("=")
    has_label = bool(equals) and "(" not in before
    label, source = (before.strip(), after.strip()) if has_label else (text.strip(), text.strip())
    if not label or not label.isprintable():
        raise ValueError(f"{text!r} has no printable label")

    source, *schedules = _split_sum(source, text)
    name, arguments = _split_call(OPTIMIZERS.get(source, source), text)
    if name in OPTIMIZERS and name not in TORCH_CLASSES:
        raise ValueError(f"{name} is a preset and takes no arguments: write {OPTIMIZERS[name]}")
    optimizer_class = _find_class(name, torch.optim.Optimizer, TORCH_CLASSES, OPTIMIZERS)
    schedulers = [_parse_scheduler(schedule, text) for schedule in schedules]
    specs = tuple(spec for _, spec in schedulers)
    takes_lr = "lr" in inspect.signature(optimizer_class).parameters
    if lr is not None and takes_lr and not set_the_rate(specs):
        arguments = {"lr": ast.Constant(lr)} | arguments
    keywords = _literals(arguments, text)
    if "lr" in keywords:
        check_lr(keywords["lr"])
    call = " + ".join([_format_call(name, arguments), *(call for call, _ in schedulers)])
    return Spec(label, call, optimizer_class, keywords, specs)


def _parse_scheduler(source: str, text: str) -> tuple[str, SchedulerSpec]:
    """Parse one `SCHEDULE(keyword=literal, ...)`; return its full call, too."""
    name, arguments = _split_call(source, text)
    scheduler_class = _find_class(name, LRScheduler, TORCH_SCHEDULERS)
    known = dict(inspect.signature(scheduler_class).parameters)
    known.pop("optimizer", None)
    given = {*arguments, RATES.get(scheduler_class)}
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in given:
            hint = NOT_LITERALS.get(key, f"write {name}({key}=...)")
            raise ValueError(f"{name} needs {key}: {hint}")
    for key in arguments:
        if key not in known:
            raise ValueError(f"{name} has no {key!r}{nearest(key, list(known))}")
    spec = SchedulerSpec(scheduler_class, _literals(arguments, text))
    return _format_call(name, arguments), spec


def _format_call(name: str, arguments: dict[str, ast.expr]) -> str:
    values = ", ".join(f"{key}={ast.unparse(value)}" for key, value in arguments.items())
    return f"{name}({values})"


def parse_task(text: str) -> Task:
    """Parse `NAME[(keyword=literal, ...)]`: an entry of tasks.py, or `module.name`, a Task.

    The keywords are those of its `make_data`. ValueError names what is wrong, in one line.
    """
    name, arguments = _split_call(text, text)
    module_name, _, attribute = name.rpartition(".")
    if module_name:
        task = _import(module_name, attribute)
        if not isinstance(task, Task):
            raise ValueError(f"{name} is not a Task of tasks.py")
    elif name not in TASKS:
        raise ValueError(f"unknown task {name!r}{nearest(name, list(TASKS))}")
    else:
        task = TASKS[name]
    known = list(inspect.signature(task.make_data).parameters)[1:]
    for keyword in arguments:
        if keyword not in known:
            hint = nearest(keyword, known) if known else ", and no other"
            raise ValueError(f"the data of {name} have no {keyword!r}{hint}")
    return replace(task, make_data=partial(task.make_data, **_literals(arguments, text)))


def _literals(arguments: dict[str, ast.expr], text: str) -> dict[str, Any]:
    try:
        return {key: ast.literal_eval(value) for key, value in arguments.items()}
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{text!r}: only literal values are accepted") from error


def _split_sum(source: str, text: str) -> list[str]:
    """Split `A + B + ...` into its terms."""
    with _of_a_form(text):
        tree, terms = ast.parse(source, mode="eval").body, []
        while isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Add):
            terms.append(ast.unparse(tree.right))
            tree = tree.left
        return [ast.unparse(tree), *reversed(terms)]


def _split_call(source: str, text: str) -> tuple[str, dict[str, ast.expr]]:
    """Split `NAME(keyword=value, ...)` or `NAME` into its name and its unevaluated values."""
    with _of_a_form(text):
        tree = ast.parse(source, mode="eval").body
        keywords = tree.keywords if isinstance(tree, ast.Call) else []
        name = ast.unparse(tree.func if isinstance(tree, ast.Call) else tree)
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError
    arguments = {keyword.arg: keyword.value for keyword in keywords}
    if getattr(tree, "args", None) or None in arguments:
        raise ValueError(f"{text!r}: every value needs its keyword")
    if len(arguments) < len(keywords):
        raise ValueError(f"{text!r} gives a keyword twice")
    return name, arguments


@contextmanager
def _of_a_form(text: str) -> Iterator[None]:
    """Turn whatever goes wrong with Python's grammar into one message."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # `1or 2` and the like would print a warning
            yield
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r} is not of the form NAME(keyword=value, ...)") from error


def _find_class(
    name: str, base: type, classes: dict[str, type], presets: Iterable[str] = ()
) -> type:
    """Return the subclass of `base` called `name`: one of the classes, or `module.Class`."""
    module_name, _, class_name = name.rpartition(".")
    if not module_name:
        if name in classes:
            return classes[name]
        kind = "schedule" if base is LRScheduler else "optimizer"
        known = list(dict.fromkeys([*presets, *classes]))
        raise ValueError(f"unknown {kind} {name!r}{nearest(name, known)}")
    found = _import(module_name, class_name)
    if not (isinstance(found, type) and issubclass(found, base)):
        module_name = "torch.optim.lr_scheduler" if base is LRScheduler else "torch.optim"
        raise ValueError(f"{name} is not a {module_name}.{base.__name__}")
    return found


def _import(module_name: str, name: str) -> Any:
    """Return what a module, installed or in the working directory, has by that name."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a learner's own file may fail in any way
        raise ValueError(f"cannot import {module_name}: {describe(error)}") from error
    if not hasattr(module, name):
        names = [
            key
            for key, value in vars(module).items()
            if not (key.startswith("_") or isinstance(value, ModuleType))
        ]
        raise ValueError(f"{module_name} has no {name!r}{nearest(name, names)}")
    return getattr(module, name)


def nearest(word: str, known: list[str]) -> str:
    """Return a hint that offers the known names nearest to `word`, or else all of them."""
    names = {name.lower(): name for name in reversed(known)}
    close = [names[name] for name in difflib.get_close_matches(word.lower(), names)]
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(known)}"


def describe(error: Exception) -> str:
    """Return an exception's own message on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def check_lr(lr: Any) -> None:
    if isinstance(lr, int | float) and not 0 < lr < math.inf:
        raise ValueError(f"lr={lr} is not a finite learning rate above 0")


def try_optimizers(specs: dict[str, Spec], take_a_step: Callable[[Spec], object]) -> None:
    """Take a step with each of them; ValueError passes on why one fails."""
    # The first optimizer makes torch import its compiler: with what is here already, some
    # 300,000 objects that live until the end. A garbage collector that walks over them again
    # and again, and once more at exit, costs a fifth of the start-up time.
    gc.disable()
    try:
        for spec in specs.values():
            take_a_step(spec)
    except Exception as error:  # whatever an optimizer may raise
        raise ValueError(f"{spec.call} does not work here: {describe(error)}") from error
    finally:
        gc.freeze()
        gc.enable()
