"""What became of a piece of work: what ended it, in words."""

from dataclasses import dataclass

from lab import outcome
from lab.outcome import (
    Outcome,
    RaisedError,
    as_exceptions,
    describe,
    is_of_a_user,
    keeping,
    nearest,
    raised,
    refusal,
)

import pytest


@dataclass
class Work(Outcome):
    steps: int = 0


@pytest.mark.parametrize(
    ("error", "seed", "note"),
    [
        (ValueError("no\n  more"), None, "failed at step 4: ValueError: no more"),
        (ValueError("no"), 7, "failed at step 4 of seed 7: ValueError: no"),
        (KeyboardInterrupt(), None, "interrupted at step 4"),
        (KeyboardInterrupt(), 7, "interrupted at step 4 of seed 7"),
    ],
)
def test_what_stopped_it_is_told_in_words(error, seed, note):
    work = Outcome()
    work.stop(error, 4, seed)
    assert work.note == note
    assert work.error is error


@pytest.mark.parametrize(
    "error", [ValueError("boom"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()]
)
def test_work_that_is_kept_has_ended_at_the_step_after_those_it_took(error):
    work = Work()
    with keeping(work):
        work.steps += 3
        raise error
    assert work.error is error
    assert "at step 4" in work.note


@pytest.mark.parametrize(
    ("error", "words"),
    [(SystemExit(3), "it calls exit()"), (GeneratorExit("no"), "GeneratorExit: no")],
)
def test_what_is_no_exception_becomes_one_with_its_words(error, words):
    with pytest.raises(RaisedError) as caught, as_exceptions():
        raise error
    assert describe(caught.value) == refusal(caught.value) == words
    assert raised(caught.value) is error
    assert raised(error) is error


@pytest.mark.parametrize("error", [KeyError("own"), KeyboardInterrupt()])
def test_exceptions_and_ctrl_c_stay_what_they_are(error):
    with pytest.raises(type(error)) as caught, as_exceptions():
        raise error
    assert caught.value is error


def test_only_what_was_interrupted_raises():
    for error in (None, ValueError("boom")):
        Outcome(error=error).raise_if_interrupted()
    with pytest.raises(KeyboardInterrupt):
        Outcome(error=KeyboardInterrupt()).raise_if_interrupted()


def test_an_error_is_one_line():
    assert describe(OSError("a\n b")) == "OSError: a b"


def test_an_error_whose_words_fail_is_told_by_its_name():
    class SpeechlessError(Exception):
        def __str__(self):
            raise KeyError("no words")

    assert describe(SpeechlessError()).startswith("SpeechlessError:")


def test_the_nearest_names_are_offered_or_else_all():
    assert nearest("adma", ["SGD", "Adam"]) == "; did you mean Adam?"
    assert nearest("x", ["SGD", "Adam"]) == "; known: SGD, Adam"
    assert nearest("spar", ["SGD", "SparseAdam"]) == "; did you mean SparseAdam?"  # a part of it
    assert nearest("loin", ["mine.Lion", "SGD"]) == "; did you mean mine.Lion?"
    assert nearest("mine.loin", ["mine.Lion", "SGD"]) == "; did you mean mine.Lion?"
    assert nearest("spa", ["SGD", "SparseAdam"]) == "; known: SGD, SparseAdam"  # too short to tell


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("homework.py", True),
        ("data/mine.py", False),
        ("compare_tasks.py", False),
        ("check_optimizer.py", False),
        ("checks/contract.py", False),
        (".venv/lib/site-packages/torch/optim/optimizer.py", False),
    ],
)
def test_a_line_that_is_blamed_is_of_a_users_own_file(name, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(outcome, "HERE", tmp_path)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert is_of_a_user(path) == expected
