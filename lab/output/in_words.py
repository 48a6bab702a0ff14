"""Verdicts in words: worse, equal, not known. And what a map shows."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from lab.output.table import in_digits
from lab.training.hyperparameter import in_short
from lab.training.maps import Map
from lab.training.verdicts import Verdict

MINI = "; with mini-batches only up to a lower one"


def amount(verdict: Verdict) -> str:
    """Return how much more one has than another: what is typical, and the interval."""
    low, typical, high = (f"{x:.3g}" for x in (verdict.low, verdict.typical, verdict.high))
    how_much = f"{typical} times" if verdict.is_factor else f"by {typical}"
    return f"{how_much} [{low}, {high}]"


def within(equal: float) -> str:
    """Return what counts as equal."""
    return f"equal within {100 * equal:.3g} %"


def pairs_in_words(
    found: Mapping[tuple[str, str], Verdict], equal: float, more: str = "worse"
) -> list[str]:
    """Return what is known of each two: who is worse by how much, who is equal, what is open."""
    labels = list(dict.fromkeys(a for a, b in found))
    pairs = list(combinations(labels, 2))
    worse = [
        f"{a} than {b}, {amount(found[a, b])}"
        for pair in pairs
        for a, b in (pair, pair[::-1])
        if found[a, b].word == "worse"
    ]
    same = [f"{a} and {b}" for a, b in pairs if found[a, b].word == "equal"]
    unknown = [
        f"{a} and {b}" + (f" (about {seeds} seeds would tell)" if seeds else "")
        for a, b in pairs
        if found[a, b].word == "not known"
        for seeds in [found[a, b].seeds]
    ]
    sentences = {more: worse, within(equal): same, "not known": unknown}
    return [f"{word.capitalize()}: {'; '.join(each)}." for word, each in sentences.items() if each]


def maps_in_words(maps: Mapping[str, Map]) -> list[str]:
    """Return the best rate at each value, up to where SGD is stable, and where a map ends."""
    sentences = []
    for label, found in maps.items():
        best = {v: sweep.best_lr for v, sweep in found.sweeps.items() if not sweep.diverged}
        sentences.append(f"{label}'s best lr is {at_each(found, best)}.")
        if found.limits and found.curvature:
            limits = dict(zip(found.over.values, found.limits, strict=True))
            sentences.append(
                f"The loss is a quadratic, whose Hessian's largest eigenvalue is "
                f"{in_digits(found.curvature, 3)}. So full-batch {label} is stable up to the lr "
                f"{at_each(found, limits)}{'' if found.has_full_batches else MINI}."
            )
        if found.ends:
            ends = " and ".join(found.ends)
            sentences.append(
                f"{label}'s best cell lies at an end of {ends}: a wider range may win."
            )
    return sentences


def at_each(found: Map, lrs: Mapping[Any, float]) -> str:
    """Return learning rates, and at which value each is."""
    told = ", ".join(f"{lr:.3g} at {in_short(value)}" for value, lr in lrs.items())
    return told.replace(" at ", f" at {found.over.name} ", 1)
