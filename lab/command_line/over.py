"""What `--over lr momentum` names: a hyperparameter that is tried beside the learning rate."""

import argparse
import ast
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from lab.command_line.parser import Parser
from lab.command_line.spaces import OneOf, is_range, parse_space, value_of
from lab.command_line.specs import Spec, parameters_of, texts_of
from lab.outcome import nearest
from lab.training.adapt import lr_keyword
from lab.training.hyperparameter import Hyperparameter, named

from settings import OPTIMIZERS
from spaces import SPACES

VALUES = 7  # of a range
EXAMPLE = "--over lr momentum"


def add_over(parser: Parser) -> None:
    text = (
        "draw a map of the held-out loss over the lr and another hyperparameter, as lr momentum, "
        'or lr "betas[0]"; its values are those of spaces.py, or typed, in quotes: lr "momentum=0 '
        'or 0.9", lr "eps=log(1e-8, 1)". If no optimizer is named, those of the default that have '
        "it are taken"
    )
    parser.add_argument("--over", nargs=2, action=Over, metavar=("lr", "NAME"), help=text)


class Over(argparse.Action):
    """Takes two words, and makes a Hyperparameter of them."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option: str | None = None,
    ) -> None:
        try:
            setattr(namespace, self.dest, parse_over(values))
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from error


def those_with(
    over: Hyperparameter, optimizers: Mapping[str, Spec], texts: Sequence[str]
) -> dict[str, Spec]:
    """Return the optimizers that have it; ValueError if one lacks it that was named, by `texts`."""
    lacking = {label: why for label, spec in optimizers.items() if (why := why_not(over, spec))}
    if lacking and (texts != texts_of(OPTIMIZERS) or len(lacking) == len(optimizers)):
        raise ValueError(f"--over: {next(iter(lacking.values()))}")
    return {label: spec for label, spec in optimizers.items() if label not in lacking}


def parse_over(words: list[str]) -> Hyperparameter:
    """Parse `lr NAME` or `lr NAME=VALUES`, where VALUES are a range, or several with `or`."""
    others = [word for word in words if word != "lr"]
    if len(others) != 1:
        raise ValueError(f"it wants lr and one other hyperparameter, as {EXAMPLE}")
    name, equals, text = (part.strip() for part in others[0].partition("="))
    match = re.fullmatch(r"(\w+)(?:\[(\d+)\])?", name)
    form = f"{others[0]!r} is not of the form NAME or NAME=VALUES"
    if not match or bool(equals) != bool(text):
        raise ValueError(form)
    keyword, number = match.groups()
    known = known_ranges()
    if not text and name not in known:
        raise ValueError(
            f"for {name} no values are known: write them, as "
            f'"{name}=0 or 0.5" or "{name}=log(1e-3, 1)"{nearest(name, list(known))}'
        )
    try:
        values = in_order(values_in(parse_values(text) if text else known[name]))
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(form) from error
    except (TypeError, OverflowError) as error:  # as of a dict, or of an int of 400 digits
        raise ValueError(f"{others[0]!r} has values that cannot be: {error}") from error
    if len(values) < 2:
        raise ValueError(f'{name} wants at least two values, as "{name}=0 or 0.5"')
    return Hyperparameter(keyword, values, None if number is None else int(number))


def parse_values(text: str) -> Any:
    """Parse a range, or values with `or` between them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # `1or 2` and the like would print a warning
        return value_of(ast.parse(text, mode="eval").body)


def in_order(values: list[Any]) -> tuple[Any, ...]:
    """Return each value once; numbers in ascending order, and of one kind, as betas have to be."""
    if all(isinstance(value, int | float) for value in values):
        values = sorted(values)
        if any(isinstance(value, float) for value in values):
            values = [float(value) for value in values]
    return tuple(dict.fromkeys(values))


def known_ranges() -> dict[str, Any]:
    """Return the ranges of spaces.py by their names, but for those of the lr: the first of each."""
    found: dict[str, Any] = {}
    for name in SPACES:
        space = parse_space(name)
        found = {k: r for k, r in space.ranges.items() if k != lr_keyword(space.spec)} | found
    return found


def values_in(value: Any) -> list[Any]:
    """Return the values that a range stands for: evenly spaced ones, or each of several."""
    if isinstance(value, OneOf):
        return [one for choice in value.choices for one in values_in(choice)]
    if is_range(value):
        return [value.at(k / (VALUES - 1)) for k in range(VALUES)]
    return [value]


def why_not(over: Hyperparameter, spec: Spec) -> str:
    """Return why an optimizer cannot be tried at such values; nothing if it can."""
    known = list(parameters_of(spec.optimizer_class).values())[1:]
    names = [p.name for p in known if p.kind is not p.VAR_KEYWORD]
    if over.keyword == lr_keyword(spec):
        return f"{over.keyword} is the lr of {spec.name}; {EXAMPLE} names another one beside it"
    if over.keyword not in names and len(names) == len(known):
        return f"{spec.name} has no {over.keyword!r}{nearest(over.keyword, names)}"
    if over.number is None:
        is_set = over.keyword in spec.keywords
        return f"{spec.label!r} names its own {over.name}, but here others are tried" * is_set
    value = named(spec, over.keyword)
    if not isinstance(value, tuple | list) or over.number >= len(value):
        return f"the {over.keyword} of {spec.name} is {value}, and has no [{over.number}]"
    return ""
