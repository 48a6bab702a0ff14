"""Random small files against a plain loop: the same numbers, or one line; never a traceback.

A number makes a file, always the same one, and a test that fails prints it. Ten thousand, by hand:

    FUZZ=10000 python -m pytest tests/test_fuzz.py -q
"""

import math
import os
import random
from collections.abc import Callable
from functools import partial

import pytest
import torch
from random_files import LR, SCHEDULES, TROUBLE, Example, random_file, write_optimizer
from small_files import (
    SEED,
    End,
    Plain,
    assert_accuracy,
    assert_quartiles,
    assert_refused,
    assert_saved,
    losses_in_csv,
    objects_of,
    path_in_csv,
    plain_descent,
    plain_training,
    read_csv,
    run,
)
from torch.utils.data import DataLoader

import compare_batch_sizes
import compare_learning_rates
import compare_optimizers
import compare_paths
from surfaces import SURFACES, Surface
from tasks import Task

COUNT = int(os.environ.get("FUZZ", "100"))


ROUNDING = 3e-7  # a few units in the last place


def plain_of(made: Example, found: dict, lr: float = LR, seed: int = SEED, **own: float) -> Plain:
    schedule = SCHEDULES[made.schedule.removeprefix(" + ")] if made.schedule else None
    maker = made.make(found, lr)
    return plain_training(found["mine"], maker, seed, schedule, made.closure, **own)


def assert_same(
    mine: list[float], plain: list[float], nudged: Callable[[], list[float]] | None = None
) -> bool:
    """Assert that numbers are the same to the bit; where they may be `nudged`, to rounding.

    `nudged()` are the numbers of the plain loop whose first weights are changed by no more than
    rounding does. Where those are as far away, it is chaos: Adagrad makes a whole step of a
    gradient that is nothing but rounding. So it tells nothing; return whether it is that.
    """
    if nudged is None:
        assert mine == pytest.approx(plain, rel=0, abs=0, nan_ok=True)
        return False
    if mine == pytest.approx(plain, rel=1e-3, abs=1e-5):
        return False
    assert distance(mine, plain) <= 10 * distance(nudged(), plain), (mine, plain)
    print("chaos")
    return True


def distance(some: list[float], others: list[float]) -> float:
    """Return the largest difference, as a share; infinite where only one is a number."""
    shares = [abs(a - b) / (abs(b) + 1e-5) for a, b in zip(some, others, strict=False) if a != b]
    return max((math.inf if math.isnan(share) else share for share in shares), default=0.0)


def check_optimizers(made: Example, found: dict) -> None:
    words = ["--optimizers", made.optimizer + made.schedule, "Adam", "--seeds", str(made.seeds)]
    end = run(compare_optimizers, "--task", "b.mine", "--lr", str(LR), *words)
    without_trouble = objects_of(made.source.replace(TROUBLE, ""))
    if made.is_refused:
        assert_refused_for_its_task(end)
        return
    plains = [plain_of(made, without_trouble, seed=SEED + k) for k in range(made.seeds)]
    if TROUBLE in made.source and len(plains[0].losses) > 2:
        assert_saved(end, 1)
        assert losses_in_csv("Adam")
        assert "failed at step 3" in end.rows[words[1]]["note"]
        assert_same(losses_in_csv(words[1]), plains[0].losses[:2])
        return
    assert_saved(end)
    in_turn = f"{words[1]}: trained net by net" in " ".join(end.out.split())
    to_rounding = made.seeds > 1 and not in_turn
    for seed, plain in enumerate(plains, SEED):
        nudged = partial(plain_of, made, without_trouble, seed=seed, nudge=ROUNDING)
        if assert_same(
            losses_in_csv(words[1], seed),
            plain.losses,
            (lambda nudged=nudged: nudged().losses) if to_rounding else None,
        ):
            return
    if to_rounding and max(plain.final for plain in plains) > torch.finfo(torch.float32).max:
        return  # a loss in double precision: a stack keeps it in its nets' single one
    row = end.rows[words[1]]
    slack = 1e-3 * max(1, *(abs(plain.final) for plain in plains)) if to_rounding else 1.1e-5
    if "loss" in row:  # there is room for it
        assert_quartiles(row["loss"], [plain.final for plain in plains], slack)
    assert_quartiles(row["held-out loss"], [plain.held_out for plain in plains], slack)
    assert_accuracy([row["accuracy"]] if "accuracy" in row else [], made.is_right, plains)


def check_rates(made: Example, found: dict) -> None:
    words = ["--optimizers", made.optimizer + made.schedule, "--seeds", str(made.seeds)]
    rates = ["--lr-range", "0.01", "0.1", "--lr-count", "2", "--judges", "2"]
    end = run(compare_learning_rates, "--task", "b.mine", *rates, *words)
    if made.is_refused:
        assert_refused_for_its_task(end)
        return
    assert_saved(end)
    rows = read_csv()
    for row in rows:
        lr, seed = float(row["lr"]), int(row["seed"])
        if lr > 0.1:  # the grid has grown, to where training may be chaos
            continue
        plain = plain_of(made, found, lr, seed)
        mine = [float(row[key]) for key in ("final_loss", "held_out_loss")]
        nudged = partial(plain_of, made, found, lr, seed, nudge=ROUNDING)
        assert_same(mine, ends(plain), lambda nudged=nudged: ends(nudged()))
    assert {row["seed"] for row in rows} == {str(SEED + k) for k in range(made.seeds + 2)}


def check_batch_sizes(made: Example, found: dict) -> None:
    words = ["--optimizer", made.optimizer + made.schedule, "--lr", str(LR), "--batch-sizes"]
    size = "full" if made.is_refused else str(found["mine"].batch_size)
    end = run(compare_batch_sizes, "--task", "b.mine", *words, size)
    if made.is_refused:
        assert_refused_for_its_task(end)
        return
    assert_saved(end)
    last = read_csv()[-1]
    plain = plain_of(made, found)
    mine = [float(last["loss"]), float(last["held_out_loss"])]
    assert_same([infinite_or(loss) for loss in mine], ends(plain))


def ends(plain: Plain) -> list[float]:
    """Return both losses after training, infinite where one is not finite."""
    return [infinite_or(loss) for loss in (plain.final, plain.held_out)]


def infinite_or(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def assert_refused_for_its_task(end: End) -> None:
    assert_refused(end, never=["does not work here", "Traceback"])


def test_a_difference_is_chaos_only_where_rounding_makes_as_large_a_one():
    assert not assert_same([1.0], [1.0005], lambda: [1.0005])
    assert assert_same([1.0, 3.0], [1.0, 2.0], lambda: [1.0, 2.2])
    assert assert_same([math.inf], [2.0], lambda: [math.inf])
    for nudged in ([1.0, 2.0], [1.0, 2.09]):
        with pytest.raises(AssertionError):
            assert_same([1.0, 3.0], [1.0, 2.0], lambda nudged=nudged: nudged)
    with pytest.raises(AssertionError):
        assert_same([math.nan], [2.0], lambda: [2.01])


def can_learn(task: Task) -> bool:
    """Tell whether any mini-batch has a gradient: a net whose ReLUs are all dead has none."""
    torch.manual_seed(SEED)
    net = task.make_net()
    for x, y in DataLoader(task.make_data(SEED)[0], task.batch_size, drop_last=True):
        task.loss(net(x), y).backward()
        if any(p.grad is not None and p.grad.any() for p in net.parameters()):
            return True
    return False


CHECKS = [check_optimizers, check_optimizers, check_rates, check_batch_sizes]


@pytest.mark.parametrize("number", range(COUNT))
def test_a_random_file_has_the_numbers_of_a_plain_loop(number, small_file):
    check = CHECKS[number % 4]
    made = random_file(number, may_fail=check is check_optimizers)
    made.is_refused |= not (made.is_refused or can_learn(objects_of(made.source)["mine"]))
    print(made)  # shown where it fails
    small_file(made.source)
    check(made, objects_of(made.source))


# ---------------------------------------------------------------- surfaces

HEIGHTS = ["0.1 * x**2", "2 * y**2", "(x - y) ** 2", "x.sin() * y", "(x * y).tanh()", "x.abs()"]


@pytest.mark.parametrize("number", range(COUNT // 5))
def test_a_random_surface_has_the_paths_of_a_plain_loop(number, small_file, monkeypatch):
    dice, made = random.Random(number), Example(number)
    formula = " + ".join(["0.5 * (x**2 + y**2)", *dice.sample(HEIGHTS, dice.randint(0, 3))])
    made.source = f"import torch\n\n\ndef two(x, y):\n    return {formula}\n"
    made.source += "\n\ndef one(point):\n    x, y = point.unbind(-1)\n    return two(x, y)\n"
    write_optimizer(made, dice)
    print(made)  # shown where it fails
    small_file(made.source)
    found = objects_of(made.source)
    start = (dice.uniform(-3, 3), dice.uniform(-2, 2))
    mine = Surface(found[dice.choice(["one", "two"])], ((-4, 4), (-3, 3)), start, "", "")
    monkeypatch.setitem(SURFACES, "mine", mine)
    words = ["--surface", "mine", "--steps", "8", "--lr", "0.05", "--optimizers", made.optimizer]
    assert_saved(run(compare_paths, *words))
    expected = plain_descent(found["one"], start, made.make(found, 0.05), 8, made.closure)
    torch.testing.assert_close(path_in_csv(made.optimizer), expected, rtol=1e-6, atol=1e-9)
