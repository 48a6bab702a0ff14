"""The language that names an optimizer, its schedules, or a task.

[LABEL=]NAME[(keyword=literal, ...)][ | NAME(...)][ + SCHEDULE(keyword=literal, ...)]...
"""

import ast
import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from types import ModuleType
from typing import Any, TypeVar

from lab.command_line.imports import (
    find,
    hint_at_form,
    hint_at_module,
    under_own_defaults,
)
from lab.outcome import nearest
from lab.training.adapt import lr_keyword, make
from lab.training.checks import UnusableError
from lab.training.parts import Parts, hidden_matrices
from lab.training.proof import Unlike
from lab.training.rotation import turned_task
from lab.training.schedules import LR_KEYWORDS, SchedulerSpec, set_the_lr

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import ParamsT

import optimizers
from optimizers import UpdateRule
from settings import OPTIMIZERS, TODAY
from tasks import TASKS, Task

C = TypeVar("C")


def _classes(module: ModuleType, base: type[C]) -> dict[str, type[C]]:
    """Return the subclasses of `base` that a module offers, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and name.strip("_") != base.__name__
    }


TORCH_CLASSES = _classes(torch.optim, torch.optim.Optimizer)
TORCH_SCHEDULERS = _classes(lr_scheduler, LRScheduler)
# Those that torch has not; its own are known without a module.
OURS = [
    f"optimizers.{name}" for name in _classes(optimizers, UpdateRule) if name not in TORCH_CLASSES
]

# What cannot be written as a literal, and what to do instead.
NOT_LITERALS = {
    "lr_lambda": "write a class in a file of yours instead, and name it as homework.MySchedule",
    "schedulers": "join schedules by + instead: SGD + LinearLR() + CosineAnnealingLR(T_max=12)",
}


@dataclass(frozen=True)
class Spec:
    """An optimizer as named on the command line. Called with a net's parameters, it is made.

    `label` stands in tables and legends, `name` is that of the class as typed. `schedulers` move
    its learning rate: see lab/training/schedules.py.
    """

    label: str
    name: str
    optimizer_class: type[torch.optim.Optimizer]
    keywords: dict[str, Any]
    schedulers: tuple[SchedulerSpec, ...] = ()

    def __call__(self, params: ParamsT, **settings: Any) -> torch.optim.Optimizer:
        return self.optimizer_class(params, **self.keywords | settings)

    def __reduce__(self) -> tuple[Any, ...]:  # by name, so that another process reads its file
        return _find_spec, (self.label, self.name, self.keywords, self.schedulers)

    @property
    def call(self) -> str:
        """The full call, which parses back."""
        calls = [(self.name, self.keywords), *((s.name, s.keywords) for s in self.schedulers)]
        return " + ".join(written(name, keywords) for name, keywords in calls)

    @property
    def has_own_lr(self) -> bool:
        """Whether its learning rate is named, or set by its schedule."""
        return lr_keyword(self) in self.keywords or set_the_lr(self.schedulers)

    @property
    def parts(self) -> tuple[object, ...]:
        """All that its steps depend on."""
        return self.optimizer_class, self.keywords, self.schedulers

    def with_lr(self, lr: float) -> "Spec":
        """Return the same with this learning rate, unless it names its own."""
        keyword = lr_keyword(self) or "lr"
        return replace(self, keywords={keyword: lr} | self.keywords)

    def to_sweep(self) -> "Spec":
        """Return what is swept where this is named."""
        return self


def _find_spec(label: str, name: str, *settings: Any) -> Spec:
    """Return a Spec whose class is found anew."""
    return Spec(label, name, find_optimizer(name), *settings)


@dataclass(frozen=True, kw_only=True)
class PartedSpec(Spec):
    """`FIRST | SECOND`: one for the weight matrices of hidden layers, one for all the rest.

    The class and the keywords are the first one's. See lab/training/parts.py.
    """

    second: Spec
    ratio: float | None = None  # of the second one's lr to the first one's, where that is swept
    hidden: tuple[int, ...] | None = None  # the numbers of a net's parameters that the first takes

    @property
    def first(self) -> Spec:
        return Spec(self.label, self.name, self.optimizer_class, self.keywords)

    def of_net(self, net: nn.Module) -> "PartedSpec":
        """Return the same, which knows which of a net's parameters go where."""
        return replace(self, hidden=tuple(hidden_matrices(net)))

    def __call__(self, params: ParamsT, **settings: Any) -> Parts:
        """Return the optimizer of these parameters; without `of_net`, all matrices are hidden ones.

        The settings are the first one's. Raises ValueError where either one gets none.
        """
        of_first: list[Tensor] = []
        of_second: list[Tensor] = []
        for number, param in enumerate(params):
            if not isinstance(param, Tensor):
                raise Unlike("not both parts are an UpdateRule")
            is_hidden = param.ndim == 2 if self.hidden is None else number in self.hidden
            (of_first if is_hidden else of_second).append(param)
        if not of_first or not of_second:
            raise UnusableError(
                f"there is no weight matrix of a hidden layer for {self.name}"
                if of_second
                else f"there is nothing but matrices, nothing for {self.second.name}"
            )
        return Parts(make(partial(self.first, **settings), of_first), make(self.second, of_second))

    def where(self, net: nn.Module) -> str:
        """Return in words which of a net's parameters go where."""
        hidden = hidden_matrices(net)
        names = [name for k, (name, _) in enumerate(net.named_parameters()) if k in hidden]
        both = self.name, self.second.name
        first, second = both if both[0] != both[1] else ("the first", "the second")
        return f"{first} moves {', '.join(names)}; {second} moves the rest"

    def __reduce__(self) -> tuple[Any, ...]:
        return _find_parted, (self.first, self.second, self.schedulers, self.ratio, self.hidden)

    @property
    def call(self) -> str:
        spec = self if self.ratio is None else self.with_lr(1.0)  # so that the ratio shows
        both = f"{spec.first.call} | {spec.second.call}"
        return " + ".join([both, *(written(s.name, s.keywords) for s in self.schedulers)])

    @property
    def parts(self) -> tuple[object, ...]:
        return *super().parts, *self.second.parts, self.ratio

    def with_lr(self, lr: float) -> "PartedSpec":
        """Return the same with this learning rate for both, unless one names its own."""
        second = self.second
        if lr_keyword(second):
            second = second.with_lr(lr if self.ratio is None else self.ratio * lr)
        return replace(self, keywords=self.first.with_lr(lr).keywords, second=second)

    def to_sweep(self) -> "PartedSpec":
        """Where both name an lr, have the ratio of these, and neither."""
        first, second = (dict(spec.keywords) for spec in (self.first, self.second))
        lr, of_second = (
            keywords.pop(lr_keyword(spec) or "lr", None)
            for spec, keywords in ((self.first, first), (self.second, second))
        )
        if not (isinstance(lr, int | float) and isinstance(of_second, int | float)):
            return self
        bare = replace(self.second, keywords=second)
        return replace(self, keywords=first, second=bare, ratio=of_second / lr)


def _find_parted(
    first: Spec,
    second: Spec,
    schedulers: tuple[SchedulerSpec, ...],
    ratio: float | None = None,
    hidden: tuple[int, ...] | None = None,
) -> PartedSpec:
    """Return both as one."""
    fields = first.label, first.name, first.optimizer_class, first.keywords, schedulers
    return PartedSpec(*fields, second=second, ratio=ratio, hidden=hidden)


def written(name: str, keywords: Mapping[str, Any]) -> str:
    """Return a call, which parses back."""
    return f"{name}({', '.join(f'{key}={literal(value)}' for key, value in keywords.items())})"


def literal(value: Any) -> str:
    """Return what parses back to the value of a literal, also where it is infinite."""
    tree = ast.parse(repr(value), mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = node.id.replace("inf", "1e999")
    return ast.unparse(tree)


def parse_optimizers(
    texts: Iterable[str] | Mapping[str, str], lr: float | None = None, sweeping: bool = False
) -> dict[str, Spec]:
    """Parse specs, or {label: call}, into {label: Spec}, in order; `today` is several.

    ValueError names what is wrong, in one line. Where a script is `sweeping` over learning rates,
    none may name its own.
    """
    if isinstance(texts, Mapping):
        texts = texts_of(texts)
    specs: dict[str, Spec] = {}
    for text in chain.from_iterable(texts_of(TODAY) if t == "today" else [t] for t in texts):
        spec = parse_optimizer(text, lr)
        check_keywords(spec)
        spec = spec.to_sweep() if sweeping else spec
        if spec.label in specs:
            raise ValueError(f"two optimizers are labelled {spec.label!r}; write LABEL={text}")
        if sweeping and spec.has_own_lr:
            names, hint = "has a schedule that sets its lr", "try it in compare_optimizers.py"
            if lr_keyword(spec) in spec.keywords:
                names = "names its own lr"
                hint = "name both or none" if isinstance(spec, PartedSpec) else hint
            raise ValueError(f"{spec.label!r} {names}, but here every rate is tried; {hint}")
        specs[spec.label] = spec
    return specs


def check_keywords(spec: Spec) -> None:
    """Raise ValueError where a class takes no such keyword."""
    known = list(parameters_of(spec.optimizer_class).values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known):
        return
    names = [parameter.name for parameter in known]
    for key in spec.keywords:
        if key not in names:
            raise ValueError(f"{spec.name} has no {key!r}{nearest(key, names)}")


def texts_of(calls: Mapping[str, str]) -> list[str]:
    """Return {label: call} as one would type it."""
    return [call if label == call else f"{label}={call}" for label, call in calls.items()]


def parse_optimizer(text: str, lr: float | None = None) -> Spec:
    """Parse one `[LABEL=]NAME[(keyword=literal, ...)][ + SCHEDULE(keyword=literal, ...)]...`.

    NAME alone is a preset, or else a class of torch.optim, or `module.Class`; a call spells out
    its hyperparameters and takes no preset. `lr` is used where the call names none and the class
    takes one. SCHEDULE is a class of torch.optim.lr_scheduler, or `module.Class`. Only literals are
    accepted and nothing is evaluated; `module` is imported. `A | B` are two of these as one, where
    a schedule stands at the end and moves both.
    """
    label, source = split_label(text)
    first, *others = split_at(ast.BitOr, source, text)
    if others:
        return parted(label, parse_optimizer(first, lr), others, text, lr)
    source, *schedules = split_at(ast.Add, source, text)
    name, keywords = split_call(OPTIMIZERS.get(source, source), text)
    if name in OPTIMIZERS and name not in TORCH_CLASSES:
        raise ValueError(f"{name} is a preset and takes no arguments: write {OPTIMIZERS[name]}")
    optimizer_class = find_optimizer(name)
    schedulers = tuple(_parse_scheduler(schedule, text) for schedule in schedules)
    keyword = lr_keyword(optimizer_class)
    if keyword and lr is not None and not set_the_lr(schedulers):
        keywords = {keyword: lr} | keywords
    if keyword in keywords:
        check_lr(keywords[keyword])
    return Spec(label, name, optimizer_class, keywords, schedulers)


def parted(
    label: str, first: Spec, others: Sequence[str], text: str, lr: float | None = None
) -> PartedSpec:
    """Return what `FIRST | SECOND + SCHEDULE` names, with the `others` still to be parsed."""
    second = parse_optimizer(others[0], lr)
    if len(others) > 1 or isinstance(second, PartedSpec):
        raise ValueError(f"{text!r} has more than two parts: hidden matrices | all the rest")
    if first.schedulers:
        raise ValueError(f"{text!r}: write the schedule at the end, where it moves both")
    check_keywords(second)
    for spec in (first, second):
        closure = parameters_of(spec.optimizer_class.step).get("closure")
        if closure and closure.default is closure.empty:
            raise ValueError(f"{text!r}: {spec.name} calls its closure itself: name it alone")
    bare = replace(second, label=second.name, schedulers=())
    return _find_parted(replace(first, label=label), bare, second.schedulers)


def _parse_scheduler(source: str, text: str) -> SchedulerSpec:
    """Parse one `SCHEDULE(keyword=literal, ...)`."""
    name, keywords = split_call(source, text)
    scheduler_class = _find_class(name, LRScheduler, TORCH_SCHEDULERS)
    known = dict(inspect.signature(scheduler_class).parameters)
    known.pop("optimizer", None)
    given = {*keywords, LR_KEYWORDS.get(scheduler_class)}
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in given:
            hint = NOT_LITERALS.get(key, f"write {name}({key}=...)")
            raise ValueError(f"{name} needs {key}: {hint}")
    for key in keywords:
        if key not in known:
            raise ValueError(f"{name} has no {key!r}{nearest(key, list(known))}")
    return SchedulerSpec(name, scheduler_class, keywords)


def parameters_of(function: object) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of what may be a function; none if it is no such thing."""
    try:
        return inspect.signature(function).parameters if callable(function) else {}
    except ValueError:
        return {}


def parse_task(text: str, turned_by: int | None = None) -> Task:
    """Parse `NAME[(keyword=literal, ...)]`: an entry of tasks.py, or `module.name`, a Task.

    The keywords are those of its `make_data`. `turned_by` is the seed of a rotation of its axes, if
    they are to be turned. ValueError names what is wrong, in one line.
    """
    name, keywords = split_call(text, text)
    module_name, _, attribute = name.rpartition(".")
    if module_name:
        task = find(module_name, attribute)
        if not isinstance(task, Task):
            raise ValueError(f"{name} is not a Task of tasks.py")
        own = partial(under_own_defaults, module_name)
        task = replace(task, make_data=own(task.make_data), make_net=own(task.make_net))
    elif name not in TASKS:
        raise ValueError(
            f"unknown task {name!r}{hint_at_module(name) or nearest(name, list(TASKS))}"
        )
    else:
        task = TASKS[name]
    known = list(parameters_of(task.make_data))[1:]
    for keyword in keywords:
        if keyword not in known:
            hint = nearest(keyword, known) if known else ", and no other"
            raise ValueError(f"the data of {name} have no {keyword!r}{hint}")
    make_data = partial(task.make_data, **keywords) if keywords else task.make_data
    task = replace(task, make_data=make_data, name=text)
    return task if turned_by is None else turned_task(task, turned_by)


def split_label(text: str) -> tuple[str, str]:
    """Split `[LABEL=]SOURCE`; without a label of its own, the text is that."""
    before, equals, after = text.partition("=")
    has_label = bool(equals) and "(" not in before
    label, source = (before.strip(), after.strip()) if has_label else (text.strip(), text.strip())
    if not label or not label.isprintable():
        raise ValueError(f"{text!r} has no printable label")
    if label.count("|") > source.count("|"):
        raise ValueError(f"{text!r}: a label stands before both parts, as LABEL=A | B")
    return label, source


def split_at(operator: type[ast.operator], source: str, text: str) -> list[str]:
    """Split `A + B + ...`, or what stands between other operators, into its terms."""
    with of_a_form(text):
        tree, terms = ast.parse(source, mode="eval").body, []
        while isinstance(tree, ast.BinOp) and isinstance(tree.op, operator):
            terms.append(ast.unparse(tree.right))
            tree = tree.left
        return [ast.unparse(tree), *reversed(terms)]


def split_call(
    source: str, text: str, value_of: Callable[[ast.expr], Any] = ast.literal_eval
) -> tuple[str, dict[str, Any]]:
    """Split `NAME(keyword=literal, ...)` or `NAME` into its name and its keywords' values.

    Where a value may be more than a literal, `value_of` says what it is.
    """
    with of_a_form(text):
        tree = ast.parse(source, mode="eval").body
        name = ast.unparse(tree.func if isinstance(tree, ast.Call) else tree)
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError
    if not isinstance(tree, ast.Call):
        return name, {}
    values = {keyword.arg: keyword.value for keyword in tree.keywords if keyword.arg}
    if tree.args or any(keyword.arg is None for keyword in tree.keywords):
        raise ValueError(f"{text!r}: every value needs its keyword, as keyword=value")
    if len(values) < len(tree.keywords):
        raise ValueError(f"{text!r} gives a keyword twice")
    try:
        return name, {key: value_of(value) for key, value in values.items()}
    except (ValueError, TypeError, RecursionError) as error:
        is_literal = value_of is ast.literal_eval
        why = "only literal values are accepted" if is_literal else str(error)
        raise ValueError(f"{text!r}: {why}") from error


@contextmanager
def of_a_form(text: str) -> Iterator[None]:
    """Turn whatever goes wrong with Python's grammar into one message."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # `1or 2` and the like would print a warning
            yield
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        form = "NAME or NAME(keyword=value, ...)"
        raise ValueError(f"{text!r} is not of the form {form}{hint_at_form(text)}") from error


def find_optimizer(name: str) -> type[torch.optim.Optimizer]:
    return _find_class(name, torch.optim.Optimizer, TORCH_CLASSES, OPTIMIZERS)


def _find_class(
    name: str, base: type[C], classes: Mapping[str, type[C]], presets: Iterable[str] = ()
) -> type[C]:
    """Return the subclass of `base` called `name`: one of the classes, or `module.Class`."""
    module_name, _, class_name = name.rpartition(".")
    if not module_name:
        if name in classes:
            return classes[name]
        kind = "schedule" if base is LRScheduler else "optimizer"
        known = list(dict.fromkeys([*presets, *classes, *(OURS if kind == "optimizer" else ())]))
        hint = hint_at_module(name) or nearest(name, known)
        if "known" in hint and kind == "optimizer":
            hint += f"; in a file or a package, as homework, it is homework.{name}"
        raise ValueError(f"unknown {kind} {name!r}{hint}")
    found = find(module_name, class_name)
    if not (isinstance(found, type) and issubclass(found, base)):
        module_name = "torch.optim.lr_scheduler" if base is LRScheduler else "torch.optim"
        raise ValueError(f"{name} is not a {module_name}.{base.__name__}")
    return found


def check_lr(lr: Any) -> None:
    if isinstance(lr, int | float) and not 0 < lr < math.inf:
        raise ValueError(f"lr={lr} is not a finite learning rate above 0")
