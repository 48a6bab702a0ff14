"""A hyperparameter that is tried beside the learning rate."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lab.training.adapt import MakeOptimizer
from lab.training.runs import Training


@dataclass(frozen=True)
class Hyperparameter:
    """What is tried beside the learning rate: its name, as constructors have it, and its values.

    It may be one of a tuple, as the first of `betas`, whose number is 0.
    """

    keyword: str
    values: tuple[Any, ...]
    number: int | None = None

    @property
    def name(self) -> str:
        return self.keyword if self.number is None else f"{self.keyword}[{self.number}]"

    @property
    def has_numbers(self) -> bool:
        """Whether all values are numbers, in whose order they are."""
        return all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.values)

    def settings(self, make_optimizer: MakeOptimizer, value: Any) -> dict[str, Any]:
        """Return the keywords that give an optimizer this value."""
        if self.number is None:
            return {self.keyword: value}
        parts = list(named(make_optimizer, self.keyword))
        parts[self.number] = value
        return {self.keyword: tuple(parts)}

    def value_in(self, settings: Mapping[str, Any]) -> Any:
        """Return the value that such keywords give."""
        value = settings[self.keyword]
        return value if self.number is None else value[self.number]

    def default(self, make_optimizer: MakeOptimizer) -> Any:
        """Return the value that an optimizer has if none is given; None if there is none."""
        value = named(make_optimizer, self.keyword)
        return value if self.number is None or value is None else value[self.number]

    def spread(
        self, trainings: Sequence[Training], make_optimizer: MakeOptimizer
    ) -> list[Training]:
        """Return the trainings at each value in turn; those without an lr, the judges, as before.

        These have no value either: what is best is not known yet.
        """
        every = [self.settings(make_optimizer, value) for value in self.values]
        grid = [replace(t, settings=own) for own in every for t in trainings if t.lr is not None]
        return [*grid, *(t for t in trainings if t.lr is None)]


def named(make_optimizer: MakeOptimizer, keyword: str | None) -> Any:
    """Return the value that a keyword has if it is not given; None if it has none."""
    if keyword in (keywords := getattr(make_optimizer, "keywords", {})):
        return keywords[keyword]
    constructor = getattr(make_optimizer, "optimizer_class", make_optimizer)
    parameter = inspect.signature(constructor).parameters.get(keyword or "")
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def in_short(value: Any) -> str:
    """Return a value as it is told."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
