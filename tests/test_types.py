"""The types of what is typed: the value, or what is wrong with the word."""

import argparse
from pathlib import Path

from lab.command_line import types

import pytest


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (types.positive_int, {"1": 1, "12": 12}, ["0", "-1", "1.5", "", "x", "nan", "1" * 5000]),
        (types.positive_int, {str(2**63 - 1): 2**63 - 1}, [str(2**63)]),
        (types.positive_float, {"1e-3": 0.001}, ["0", "-1", "nan", "inf", "x", "", "1e999"]),
        (types.non_negative_float, {"0": 0.0, "2": 2.0}, ["-0.1", "nan", "inf", "-inf", "x"]),
        (types.finite_float, {"-1e-3": -0.001, "0": 0.0}, ["nan", "inf", "-inf", "1e999", "x"]),
        (types.one_of(["bowl"], "surface"), {"bowl": "bowl"}, ["bow", "", "Bowl "]),
        (types.seed_type, {"0": 0, "-3": -3, str(2**64 - 1): 2**64 - 1}, ["x", "1.0", str(2**64)]),
    ],
)
def test_numbers_and_names(kind, good, bad):
    assert {text: kind(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError):
            kind(text)


def test_paths(workdir):
    (workdir / "folder.png").mkdir()
    assert types.figure_path("a.png").name == "a.png"
    for text in ("none/a.png", "folder.png", "a.xyz", "a", "/dev/null"):
        with pytest.raises(argparse.ArgumentTypeError):
            types.figure_path(text)
    assert [path.name for path in workdir.iterdir()] == ["folder.png"]


def test_an_animation_is_a_path_of_a_format_that_can_be_made(workdir):
    assert types.animation_path("a.gif") == Path("a.gif")
    with pytest.raises(argparse.ArgumentTypeError, match=r"no \.gif"):
        types.animation_path("a.png")


def test_a_device_is_one_that_torch_has_here():
    assert types.device_type("cpu") == "cpu"
    with pytest.raises(argparse.ArgumentTypeError) as refusal:
        types.device_type("toaster")
    assert str(refusal.value).startswith("torch has no device 'toaster' here: RuntimeError: ")
    assert ". " not in str(refusal.value)  # torch goes on for lines


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:8786", "localhost:8786", "tls://[::1]:1"])
def test_a_cluster_has_an_address(address):
    assert types.dask_address(address) == address


@pytest.mark.parametrize("address", ["localhost", "tcp://localhost", "a b:1", ":x", ""])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(argparse.ArgumentTypeError, match="is not an address"):
        types.dask_address(address)
