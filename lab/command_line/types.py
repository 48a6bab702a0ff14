"""The types of what is typed: each returns the value, or says in one line what is wrong with it."""

import argparse
import importlib.util
import math
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import lab.pictures
from lab.outcome import describe, nearest
from lab.pictures.animations import writer_for

import matplotlib.pyplot as plt
import torch
from matplotlib.backend_bases import FigureCanvasBase

STYLES = Path(lab.pictures.__path__[0])  # where the style sheets are that come along


def positive_int(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text[:20]) < 2**63):  # what torch can take
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def positive_float(text: str) -> float:
    if not 0 < _number(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above 0")
    return float(text)


def non_negative_float(text: str) -> float:
    if not 0 <= _number(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number of 0 or more")
    return float(text)


def finite_float(text: str) -> float:
    if not math.isfinite(_number(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return float(text)


def one_of(names: Sequence[str], what: str) -> Callable[[str], str]:
    """Return a type that takes one of the names; `what` they name is said where it is none."""

    def name(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"unknown {what} {text!r}{nearest(text, list(names))}")
        return text

    return name


def seed_type(text: str) -> int:
    try:
        torch.Generator().manual_seed(int(text))
    except (ValueError, RuntimeError):
        limits = "a whole number from -2**63 to 2**64 - 1"
        raise argparse.ArgumentTypeError(f"{text!r} is not a seed: {limits}") from None
    return int(text)


def device_type(text: str) -> str:
    """A device that torch has here."""
    try:
        torch.zeros(1, device=text)
    except Exception as error:  # torch has many ways to say no
        reason = describe(error).split(". ")[0]
        raise argparse.ArgumentTypeError(f"torch has no device {text!r} here: {reason}") from None
    return text


def dask_address(text: str) -> str:
    """The address of a Dask scheduler, where its package is installed."""
    if importlib.util.find_spec("distributed") is None:
        raise argparse.ArgumentTypeError("it needs a package: pip install distributed")
    if not re.fullmatch(r"(\w+://)?[^\s/]+:\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address, such as tcp://HOST:8786")
    return text


def output_path(text: str) -> Path:
    """A path to write: in a folder that exists and can be written, over no folder or device."""
    path = Path(text)
    if path.exists() and not path.is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not a file")
    try:
        tempfile.TemporaryFile(dir=path.resolve().parent).close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: {error.strerror}") from None
    return path


def folder_path(text: str) -> Path:
    """A folder to write in: one that exists, or that can be made where it stands."""
    path = Path(text)
    there = next(parent for parent in [path, *path.resolve().parents] if parent.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{str(there)!r} is not a folder")
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write in {text!r}: {error.strerror}") from None
    return path


def style_type(text: str) -> str:
    """A style sheet that comes along or that matplotlib knows, or the path of one."""
    ours = {path.stem: str(path) for path in sorted(STYLES.glob("*.mplstyle"))}
    name = ours.get(text, text)
    try:
        with plt.style.context(name):
            return name
    except (OSError, ValueError):
        known = [*ours, *plt.style.available]
        hint = nearest(text, known)
        raise argparse.ArgumentTypeError(f"{text!r} is no style sheet and no file{hint}") from None


def figure_path(text: str) -> Path:
    """A path to write whose extension is a figure format that matplotlib knows."""
    formats = FigureCanvasBase.get_supported_filetypes()
    if Path(text).suffix[1:].lower() not in formats:
        known = ", ".join(sorted(formats))
        raise argparse.ArgumentTypeError(f"{text!r} has no figure format of these: {known}")
    return output_path(text)


def page_path(text: str) -> Path:
    """A path to write that a browser opens as a page."""
    if Path(text).suffix.lower() != ".html":
        raise argparse.ArgumentTypeError(f"{text!r} is no .html")
    return output_path(text)


def animation_path(text: str) -> Path:
    """A path to write whose extension is an animation format that can be made here."""
    try:
        writer_for(Path(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return output_path(text)
