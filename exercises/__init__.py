"""Ten exercises, and what a student's own file has to hold to be right."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from lab.specs import describe

import optimizers
from checks.maker import Maker
from exercises import rules
from exercises.checks import (
    LR,
    Wrong,
    check_clip,
    check_diverging_rate,
    check_optimizer,
    check_own_task,
)


@dataclass(frozen=True)
class Exercise:
    """A name that the student's file defines, and the check of it, which raises Wrong."""

    name: str
    check: Callable[[Any], None]


def optimizer(
    name: str,
    rule: rules.Rule,
    mistakes: dict[str, rules.Rule],
    lr: float = LR,
    like: Maker | None = None,
) -> Exercise:
    """Return the exercise to write an optimizer whose steps, at this rate, are the rule's.

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

EXERCISES = [
    Exercise("LR", check_diverging_rate),
    optimizer("MySGD", rules.sgd, rules.SGD_MISTAKES, like=SGD),
    optimizer("MyMomentum", rules.momentum, rules.MOMENTUM_MISTAKES, like=MOMENTUM),
    optimizer("Averaging", rules.momentum, rules.AVERAGING_MISTAKES, lr=5 * LR),
    optimizer("MyRMSprop", rules.rmsprop, rules.RMSPROP_MISTAKES, like=RMSPROP),
    optimizer("MyAdam", rules.adam, rules.ADAM_MISTAKES, like=ADAM),
    optimizer("MyAdamW", rules.adamw, rules.ADAMW_MISTAKES, like=ADAMW),
    Exercise("clip", check_clip),
    optimizer("MyLion", rules.lion, rules.LION_MISTAKES),
    Exercise("mine", check_own_task),
]

RIGHT = "Exercise {number} is right."
MISSING = "The file defines no {name}."
FAILS = "It fails{where}: {error}"


def check(number: int, namespace: dict[str, Any]) -> Wrong | None:
    """Return what is wrong with the answer to an exercise, None if it is right.

    `namespace` is what the student's file defines, with its `__file__`.
    """
    exercise = EXERCISES[number - 1]
    try:
        if exercise.name not in namespace:
            raise Wrong(MISSING, name=exercise.name)
        exercise.check(namespace[exercise.name])
    except Wrong as finding:
        return finding
    except Exception as error:  # a student's own code may fail in any way
        return failure(error, namespace.get("__file__"))
    return None


def failure(error: Exception, path: str | None) -> Wrong:
    """Return the finding that the file at `path` fails, and at which of its lines."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)]
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    own = [line for line, file in zip(lines, files, strict=True) if file == path]
    where = f" at line {own[-1]}" if own else ""
    return Wrong(FAILS, where=where, error=describe(error))
