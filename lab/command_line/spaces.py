"""The language of spaces: a name of an optimizer whose values may be ranges. See spaces.py."""

import ast
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import Parameter
from itertools import chain
from typing import Any, Protocol

from lab.command_line.specs import (
    Spec,
    check_keywords,
    find_optimizer,
    of_a_form,
    parameters_of,
    parse_optimizer,
    parted,
    split_at,
    split_call,
    split_label,
)
from lab.training.adapt import lr_keyword
from lab.training.trials import Trial, why_not

import torch
from torch import Tensor

from spaces import ANY_LR, DEFAULTS, SCHEDULES, SPACES, YOUNG

FORMS = "log(LOW, HIGH), even(LOW, HIGH), 1 - log(LOW, HIGH), A or B"


# ---------------------------------------------------------------- ranges


class Range(Protocol):
    """Where one number of a setting is looked for."""

    def at(self, place: float) -> Any:
        """Return the value at a place from 0 to 1."""

    def ends(self) -> tuple[Any, Any]:
        """Return the values at places 0 and 1; None for an end beyond which there is nothing."""


@dataclass(frozen=True)
class Log:
    """From low to high, evenly by the logarithm."""

    low: float
    high: float

    def at(self, place: float) -> float:
        return three_digits(self.low * (self.high / self.low) ** place)

    def ends(self) -> tuple[float, float]:
        return self.low, self.high


@dataclass(frozen=True)
class Even:
    """From low to high, evenly."""

    low: float
    high: float

    def at(self, place: float) -> float:
        return three_digits(self.low + (self.high - self.low) * place)

    def ends(self) -> tuple[float, float]:
        return self.low, self.high


@dataclass(frozen=True)
class OneMinus:
    """1 minus a range; 0 is where such a hyperparameter ends."""

    range: Range

    def at(self, place: float) -> float:
        return round(1 - self.range.at(place), 10)

    def ends(self) -> tuple[Any, Any]:
        low, high = (None if end in (None, 1) else 1 - end for end in self.range.ends())
        return low, high


@dataclass(frozen=True)
class OneOf:
    """One of several values or ranges, each as likely."""

    choices: tuple[Any, ...]

    def at(self, place: float) -> Any:
        number = min(int(place * len(self.choices)), len(self.choices) - 1)
        choice = self.choices[number]
        return choice.at(place * len(self.choices) - number) if is_range(choice) else choice

    def ends(self) -> tuple[Any, Any]:
        first, last = self.choices[0], self.choices[-1]
        low = first.ends()[0] if is_range(first) else None
        return low, last.ends()[1] if is_range(last) else None


def is_range(value: object) -> bool:
    return isinstance(value, Log | Even | OneMinus | OneOf)


def three_digits(value: float) -> float:
    return float(f"{value:.3g}")


def ranges_in(name: str, value: Any) -> dict[str, Range]:
    """Return the ranges in a value, by name: betas[0] is the first of a tuple."""
    if is_range(value):
        return {name: value}
    if not isinstance(value, tuple):
        return {}
    return {
        k: r for i, part in enumerate(value) for k, r in ranges_in(f"{name}[{i}]", part).items()
    }


def filled(name: str, value: Any, drawn: Mapping[str, Any]) -> Any:
    """Return a value with what is drawn in place of its ranges."""
    if isinstance(value, tuple):
        return tuple(filled(f"{name}[{i}]", part, drawn) for i, part in enumerate(value))
    return drawn[name] if is_range(value) else value


# ---------------------------------------------------------------- spaces


@dataclass(frozen=True)
class Space:
    """An optimizer as named on the command line, with ranges among its keywords' values.

    `schedules` are those that it may have, as text. `default` is what one takes without tuning.
    """

    label: str
    call: str  # the full call, which parses back
    spec: Spec  # with those keywords that are no ranges
    keywords: Mapping[str, Any]  # all, in order
    schedules: tuple[str, ...]
    default: Spec

    @property
    def ranges(self) -> dict[str, Range]:
        """The ranges by name: the dimensions of the space."""
        found: dict[str, Range] = {}
        for name, value in self.keywords.items():
            found |= ranges_in(name, value)
        if len(self.schedules) > 1:
            found["schedule"] = OneOf(self.schedules)
        return found

    def draw(self, n_trials: int, seed: int, epochs: int) -> list[Trial]:
        """Return so many trials for a task of so many epochs; just one if there are no ranges.

        The places are those of a Sobol sequence, scrambled by the seed: the same for all tasks.
        """
        ranges = self.ranges
        trials = []
        for k, place in enumerate(places_of(len(ranges), n_trials, seed).tolist(), start=1):
            drawn = {name: r.at(x) for (name, r), x in zip(ranges.items(), place, strict=True)}
            keywords = {name: filled(name, v, drawn) for name, v in self.keywords.items()}
            schedule = drawn.get("schedule", self.schedules[0])
            trials.append(self.trial(f"{k}", keywords, schedule, epochs, tuple(place)))
        return trials

    def untuned(self, n_rates: int, seed: int, epochs: int) -> list[Trial]:
        """Return the trials with all as it is by default: so many rates, and the default one.

        The rates are at the places of the first ones of `draw`. What cannot be made is left out.
        """
        lr, ranges, schedule = lr_keyword(self.spec), self.ranges, self.schedules[0]
        trials = []
        if lr in ranges:
            places = places_of(len(ranges), n_rates, seed)[:, list(ranges).index(lr)].tolist()
            for k, place in enumerate(places, start=1):
                keywords = {lr: None} | self.default.keywords | {lr: ranges[lr].at(place)}
                trials.append(self.trial(f"rate {k}", keywords, schedule, epochs))
        trials.append(self.trial("default", self.default.keywords, schedule, epochs))
        return [trial for trial in trials if not why_not(trial)]

    def trial(
        self,
        name: str,
        keywords: Mapping[str, Any],
        schedule: str,
        epochs: int,
        place: tuple[float, ...] = (),
    ) -> Trial:
        """Return a trial that has, of all hyperparameters of the space, the default where none."""
        known = parameters_of(self.spec.optimizer_class)
        own = {key: known[key].default for key in self.keywords if key in known}
        own = {key: value for key, value in own.items() if value is not Parameter.empty}
        keywords = own | {**keywords}
        spec = with_schedule(replace(self.spec, keywords=keywords), schedule, epochs)
        settings = dict(keywords)
        lr = settings.pop(lr_keyword(self.spec) or "", None)
        return Trial(name, spec.call, replace(spec, keywords={}), lr, settings, place)


def places_of(n_ranges: int, n_trials: int, seed: int) -> Tensor:
    """Return places (trials, ranges), from 0 to 1."""
    if not n_ranges:
        return torch.empty(1, 0)
    engine = torch.quasirandom.SobolEngine(n_ranges, scramble=True, seed=seed)
    return engine.draw(n_trials, dtype=torch.float64)


def with_schedule(spec: Spec, schedule: str, epochs: int) -> Spec:
    """Return a spec with the schedule that is written so, for so many epochs."""
    text = SCHEDULES.get(schedule, schedule).format(epochs=epochs)
    if not text:
        return spec
    return replace(spec, schedulers=parse_optimizer(f"SGD + {text}").schedulers)


def parse_spaces(texts: Iterable[str]) -> dict[str, Space]:
    """Parse spaces into {label: Space}, in order; `today` is Adam's and those of younger ones.

    ValueError names what is wrong, in one line.
    """
    today = ["Adam", *YOUNG]
    spaces: dict[str, Space] = {}
    for text in chain.from_iterable(today if text == "today" else [text] for text in texts):
        space = parse_space(text)
        if space.label in spaces:
            raise ValueError(f"two optimizers are labelled {space.label!r}; write LABEL={text}")
        spaces[space.label] = space
    return spaces


def parse_space(text: str) -> Space:
    """Parse `[LABEL=]NAME[(keyword=value, ...)][ | NAME][ + SCHEDULE]`: a value may be a range.

    NAME alone is a space of spaces.py; of others the learning rate alone is looked for. What comes
    after `|` has no ranges.
    """
    label, source = split_label(text)
    call = (SPACES | YOUNG).get(" | ".join(split_at(ast.BitOr, source, text)), source)
    *before, last = split_at(ast.BitOr, call, text)
    last, *terms = split_at(ast.Add, last, text)
    first = before[0] if before else last
    name, keywords = split_call(first, text, value_of)
    optimizer_class = find_optimizer(name)
    lr = lr_keyword(optimizer_class)
    if "(" not in first and lr:
        keywords = {lr: value_of(ast.parse(ANY_LR, mode="eval").body)}
        first = f"{name}({lr}={ANY_LR})"
    fixed = {key: value for key, value in keywords.items() if not ranges_in(key, value)}
    spec = Spec(label, name, optimizer_class, fixed)
    check_keywords(replace(spec, keywords=keywords))
    if before:
        spec = parted(label, spec, [*before[1:], last], text)
        first = f"{first} | {last}"
    default = parse_optimizer(DEFAULTS[source]) if source in DEFAULTS else spec
    schedules = schedules_of(terms, text)
    for schedule in schedules:
        with_schedule(spec, schedule, epochs=1)
    return Space(label, " + ".join([first, *terms]), spec, keywords, schedules, default)


def schedules_of(terms: Sequence[str], text: str) -> tuple[str, ...]:
    """Return the schedules that a space may have: one, or those between which `or` stands."""
    if len(terms) != 1:
        return (" + ".join(terms) or "none",)
    with of_a_form(text):
        tree = ast.parse(terms[0], mode="eval").body
    if not isinstance(tree, ast.BoolOp):
        return (terms[0],)
    return tuple(ast.unparse(value) for value in tree.values)


def value_of(tree: ast.expr) -> Any:
    """Return a range, a literal, or a tuple with such in it; ValueError if it is none of these."""
    match tree:
        case ast.Call(func=ast.Name(id="log" | "even" as name), args=[low, high], keywords=[]):
            return range_of(name, value_of(low), value_of(high))
        case ast.BinOp(left=ast.Constant(value=1), op=ast.Sub(), right=right):
            if is_range(inner := value_of(right)):
                return OneMinus(inner)
        case ast.BoolOp(op=ast.Or(), values=values):
            return OneOf(tuple(value_of(value) for value in values))
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return tuple(value_of(part) for part in parts)
    try:
        return ast.literal_eval(tree)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{ast.unparse(tree)} is neither a literal nor {FORMS}") from error


def range_of(name: str, low: Any, high: Any) -> Range:
    """Return the range of that name, or raise ValueError if it has no such ends."""
    are_numbers = all(isinstance(end, int | float) and math.isfinite(end) for end in (low, high))
    if not are_numbers or not low < high or (name == "log" and not low > 0):
        above = ", above 0" if name == "log" else ""
        raise ValueError(f"{name}({low!r}, {high!r}): it wants two numbers, LOW below HIGH{above}")
    make: Callable[[float, float], Range] = Log if name == "log" else Even
    return make(float(low), float(high))
