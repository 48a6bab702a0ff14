"""A sentence about what is wrong, in English or Chinese, and the line of theirs that fails."""

import json
import sysconfig
import traceback
from functools import cache
from pathlib import Path
from typing import Any

import torch

OURS = Path(__file__).parent
FAILS = "It fails {where}: {error}"
FAILS_WHILE = "It fails {where}, {doing}: {error}"


class Wrong(Exception):  # noqa: N818 (a finding, not an error)
    """What is wrong: an English sentence, and the values that go into it."""

    def __init__(self, sentence: str, **values: Any):
        super().__init__(sentence.format(**values))
        self.sentence, self.values = sentence, values

    def say(self, chinese: bool = False) -> str:
        return say(self.sentence, chinese, **self.values)


def say(sentence: str, chinese: bool = False, **values: Any) -> str:
    """Return a sentence with its values; what is a sentence among them is translated, too."""
    if chinese:
        texts = _chinese()
        values = {key: texts.get(text, text) for key, text in values.items() if _is_key(text)} | {
            key: value for key, value in values.items() if not _is_key(value)
        }
        sentence = texts.get(sentence, sentence)
    return sentence.format(**values)


def _is_key(value: Any) -> bool:
    return isinstance(value, str)


@cache
def _chinese() -> dict[str, str]:
    return json.loads((OURS / "chinese.json").read_text(encoding="utf-8"))


def failure(error: BaseException, doing: str = "") -> Wrong:
    """Return the finding that their code fails: where in it, and with what message."""
    message = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, SyntaxError) and error.filename:
        where = f"at {shown(error.filename)}, line {error.lineno}"
        message = f"{type(error).__name__}: {error.msg}"
    else:
        where = f"at {place}" if (place := line_of_theirs(error)) else "somewhere"
    if doing:
        return Wrong(FAILS_WHILE, where=where, doing=doing, error=message)
    return Wrong(FAILS, where=where, error=message)


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
