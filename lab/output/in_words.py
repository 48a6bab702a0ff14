"""Verdicts in words: worse, equal, not known."""

from collections.abc import Mapping
from itertools import combinations

from lab.training.verdicts import Verdict


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
