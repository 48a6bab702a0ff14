"""A sentence about what is wrong, in English or Chinese, and the line of theirs that fails."""

import json
import re
import sysconfig
import traceback
from functools import cache
from pathlib import Path
from typing import Any

from lab.outcome import raised

import torch

OURS = Path(__file__).parent
FAILS = "It fails at {where}: {error} {cure}"
FAILS_WHILE = "It fails at {where}, {doing}{options}: {error} {cure}"
SOMEWHERE = "a place that Python does not tell"
CURES = {  # what to do about an error, by a piece of its message
    "a leaf Variable that requires grad": "Write `@torch.no_grad()` above `def step`.",
    "The size of tensor a": "Does one memory serve parameters of different shapes?",
    "float division by zero": "Does the count of steps start at 0?",
    "required positional argument": "Which arguments have no default?",
}


class Wrong(Exception):  # noqa: N818 (a finding, not an error)
    """What is wrong: an English sentence, and the values that go into it."""

    def __init__(self, sentence: str, **values: Any):
        super().__init__(sentence.format(**values).strip())
        self.sentence, self.values = sentence, values

    def say(self, chinese: bool = False) -> str:
        return say(self.sentence, chinese, **self.values).strip()


def say(sentence: str, chinese: bool = False, **values: Any) -> str:
    """Return a sentence with its values; what is a sentence among them is translated, too."""
    if chinese:
        texts = _chinese()
        sentence = texts.get(sentence, sentence)
        values = {key: texts.get(str(value), value) for key, value in values.items()}
        return re.sub(r", line (\d+)", r" 第 \1 行", sentence.format(**values))
    return sentence.format(**values)


@cache
def _chinese() -> dict[str, str]:
    return json.loads((OURS / "chinese.json").read_text(encoding="utf-8"))


def failure(error: BaseException, doing: str = "", cure: str = "", options: str = "") -> Wrong:
    """Return the finding that their code fails: where in it, at doing what, what helps."""
    error = raised(error)
    message = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".") + "."
    where = line_of_theirs(error) or SOMEWHERE
    if isinstance(error, SyntaxError) and error.filename:
        where, message = (
            f"{shown(error.filename)}, line {error.lineno}",
            f"SyntaxError: {error.msg}.",
        )
    cure = cure or next((text for piece, text in CURES.items() if piece in message), "")
    sentence = FAILS_WHILE if doing else FAILS
    return Wrong(sentence, where=where, doing=doing, options=options, error=message, cure=cure)


def line_of_theirs(error: BaseException) -> str:
    """Return `file.py, line N` for the last line that is neither ours, nor torch's or Python's.

    Of a class that is torch's or ours, the last of its own.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.lineno]
    theirs = [frame for frame in frames if _is_theirs(frame.filename)]
    others = [
        frame
        for frame in frames
        if not frame.filename.startswith("<") and OURS not in Path(frame.filename).parents
    ]
    for frame in reversed(theirs or others):
        return f"{shown(frame.filename)}, line {frame.lineno}"
    return ""


def _is_theirs(filename: str) -> bool:
    path, root = Path(filename), OURS.parent
    python = Path(sysconfig.get_path("stdlib"))
    if filename.startswith("<") or (python in path.parents and "site-packages" not in path.parts):
        return False
    ours = [OURS, root / "lab", root / "optimizers", Path(torch.__file__).parent]
    return not (set(ours) & set(path.parents) or path == root / "check_optimizer.py")


def shown(filename: str) -> str:
    """Return a path as one would type it here."""
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if Path.cwd() in path.parents else str(path)
