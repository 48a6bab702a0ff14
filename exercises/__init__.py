"""Exercises, and the checks of a student's own file."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from lab.outcome import as_exceptions, message_of, raised

import optimizers
from checks.maker import Maker
from exercises import rules
from exercises.checks import (
    LR,
    WrongAnswer,
    check_axes,
    check_clip,
    check_diverging_rate,
    check_level,
    check_optimizer,
    check_own_task,
    check_reorder,
)


@dataclass(frozen=True)
class Exercise:
    """A name that the student's file has to define, and its check, which raises WrongAnswer."""

    name: str
    check: Callable[[Any], None]


def optimizer_exercise(
    name: str,
    rule: rules.Rule,
    mistakes: dict[str, rules.Rule],
    lr: float = LR,
    like: Maker | None = None,
) -> Exercise:
    """Return the exercise to write an optimizer that takes the rule's steps at this rate.

    `like` takes the same steps, and is written out in optimizers/: it has hundreds of mistakes.
    """
    check = partial(check_optimizer, rule=rule, mistakes=mistakes, lr=lr, like=like)
    return Exercise(name, check)


# What takes the same steps as the answer, and is written out in optimizers/.
SGD = Maker("SGD", optimizers.SGD, {"weight_decay": 0.1})
MOMENTUM = Maker("SGD", optimizers.SGD, {"momentum": 0.8})
RMSPROP = Maker("RMSprop", optimizers.RMSprop, {"alpha": 0.9})
ADAM = Maker("Adam", optimizers.Adam)
ADAMW = Maker("AdamW", optimizers.AdamW, {"weight_decay": 0.1})
LION = Maker("Lion", optimizers.Lion)

EXERCISES = [
    Exercise("LR", check_diverging_rate),
    optimizer_exercise("MySGD", rules.sgd, rules.SGD_MISTAKES, like=SGD),
    optimizer_exercise("MyMomentum", rules.momentum, rules.MOMENTUM_MISTAKES, like=MOMENTUM),
    optimizer_exercise("Averaging", rules.momentum, rules.AVERAGING_MISTAKES, lr=5 * LR),
    optimizer_exercise("MyRMSprop", rules.rmsprop, rules.RMSPROP_MISTAKES, like=RMSPROP),
    optimizer_exercise("MyAdam", rules.adam, rules.ADAM_MISTAKES, like=ADAM),
    optimizer_exercise("MyAdamW", rules.adamw, rules.ADAMW_MISTAKES, like=ADAMW),
    Exercise("clip", check_clip),
    optimizer_exercise("MyLion", rules.lion, rules.LION_MISTAKES, like=LION),
    Exercise("mine", check_own_task),
    Exercise("reorder", check_reorder),
    Exercise("CHANGED", check_axes),
    Exercise("LEVEL", check_level),
]

RIGHT = "Exercise {number} is right."
MISSING = "The file defines no {name}."
FAILS = "It fails: {error}"
FAILS_AT = "It fails at line {line}: {error}"
ENDS = "The file calls exit() when it is run: take that out."


def check(number: int, namespace: dict[str, Any]) -> WrongAnswer | None:
    """Return what is wrong with the answer to an exercise, None if it is right.

    `namespace` holds all names of the student's file, with its `__file__`.
    """
    exercise = EXERCISES[number - 1]
    try:
        if exercise.name not in namespace:
            raise WrongAnswer(MISSING, name=exercise.name)
        with as_exceptions():
            exercise.check(namespace[exercise.name])
    except WrongAnswer as finding:
        return finding
    except Exception as error:  # a student's own code may fail in any way
        return failure(error, namespace.get("__file__"))
    return None


def failure(error: BaseException, path: str | None) -> WrongAnswer:
    """Return the finding that the file at `path` fails, and at which of its lines."""
    error = raised(error)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    error_text = message_of(error)
    if not lines:
        return WrongAnswer(FAILS, error=error_text)
    return WrongAnswer(FAILS_AT, line=lines[-1], error=error_text)
