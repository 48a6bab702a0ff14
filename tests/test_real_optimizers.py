"""Optimizers as people write them: each has the numbers of a plain loop, alone and among others."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from small_files import (
    HEAD,
    LR,
    SEED,
    assert_like_plain,
    assert_refused,
    assert_saved,
    near,
    objects_of,
    path_in_csv,
    plain_descent,
    plain_training,
    read_csv,
    run,
)

import compare_batch_sizes
import compare_learning_rates
import compare_optimizers
import compare_paths
from surfaces import SURFACES

TASK = """
net = lambda: nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1))
mine = Task(data(x, x[:, :1] * x[:, 1:]), net, F.mse_loss, 3, 20)


class Mine(torch.optim.Optimizer):
"""
STEPS_DOWN = """
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad
"""
CLOSURE = """
    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()"""

# Each class, and what differs from the usual with it: "closure": False, its step is called as in
# the textbook's loop, after backward(); "graph", the gradients have one; "swept" and "scheduled",
# where it cannot be, the words of the line that says so.
KINDS = {
    "step() without a closure": ({"closure": False}, f"""
    def __init__(self, params, lr=0.01):
        super().__init__(params, {{"lr": lr}})

    @torch.no_grad()
    def step(self):{STEPS_DOWN}"""),
    "a closure that it ignores": ({"closure": False}, f"""
    def __init__(self, params, lr=0.01):
        super().__init__(params, {{"lr": lr}})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None{STEPS_DOWN}
        return loss
"""),
    "a closure that it calls without gradients": ({"closure": False}, f"""
    def __init__(self, params, lr=0.01):
        super().__init__(params, {{"lr": lr}})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            loss = closure(){STEPS_DOWN}
        return loss
"""),
    "a closure, and no loss returned": ({}, f"""
    def __init__(self, params, lr=0.01):
        super().__init__(params, {{"lr": lr}})
{CLOSURE}{STEPS_DOWN}"""),
    "the loss returned as a float": ({}, f"""
    def __init__(self, params, lr=0.01):
        super().__init__(params, {{"lr": lr}})
{CLOSURE}{STEPS_DOWN}
        return float(loss.sum())
"""),
    "lr without a default": ({}, f"""
    def __init__(self, params, lr):
        super().__init__(params, {{"lr": lr}})
{CLOSURE}{STEPS_DOWN}
        return loss
"""),
    # A rate that it keeps to itself is swept as a keyword; a schedule cannot move it.
    "lr in self.lr": ({"scheduled": ["lr"]}, f"""
    def __init__(self, params, lr=0.01):
        super().__init__(params, {{"lr": lr}})
        self.lr = lr
{CLOSURE}
        for group in self.param_groups:
            for p in group["params"]:
                p -= self.lr * p.grad
        return loss
"""),
    "lr in self.lr only, velocities in a list, step() without a closure": (
        {"closure": False, "scheduled": ["lr"]}, """
    def __init__(self, params, lr):
        params = list(params)
        super().__init__(params, {})
        self.lr, self.params = lr, params
        self.velocities = [torch.zeros_like(p) for p in params]

    @torch.no_grad()
    def step(self):
        for p, velocity in zip(self.params, self.velocities):
            velocity.mul_(0.5).add_(p.grad)
            p -= self.lr * velocity
"""),
    # Swept under its own name; torch's schedulers know lr only.
    "a rate of another name": ({"rate": "step_size", "scheduled": ["lr"]}, f"""
    def __init__(self, params, step_size=0.02):
        super().__init__(params, {{"step_size": step_size}})
{CLOSURE}{STEPS_DOWN.replace('"lr"', '"step_size"')}
        return loss
"""),
    "groups of its own: no decay for biases": ({}, f"""
    def __init__(self, params, lr=0.01):
        params = list(params)
        super().__init__([{{"params": [p for p in params if p.ndim > 1], "decay": 0.1}},
                          {{"params": [p for p in params if p.ndim <= 1], "lr": lr / 10}}],
                         {{"lr": lr, "decay": 0.0}})
{CLOSURE}
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * (p.grad + group["decay"] * p)
        return loss
"""),
    "groups that it dissolves": ({}, f"""
    def __init__(self, params, lr=0.01):
        params = [p for g in params for p in (g["params"] if isinstance(g, dict) else [g])]
        super().__init__(params, {{"lr": lr}})
{CLOSURE}{STEPS_DOWN}
        return loss
"""),
    "decay of matrices, by their ndim": ({}, f"""
    def __init__(self, params, lr=0.01):
        super().__init__(params, {{"lr": lr}})
{CLOSURE}
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * (p.grad + 0.1 * p if p.ndim > 1 else p.grad)
        return loss
"""),
    "the gradient by its norm over all parameters": ({}, f"""
    def __init__(self, params, lr=0.01):
        super().__init__(params, {{"lr": lr}})
{CLOSURE}
        norm = sum(p.grad.square().sum() for g in self.param_groups for p in g["params"]).sqrt()
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad / norm
        return loss
"""),
    "p.data = ...": ({}, """
    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})

    def step(self, closure=None):
        loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.requires_grad:
                    p.data = p.data - group["lr"] * p.grad.data
        return loss
"""),
    "a tensor for lr": ({}, f"""
    def __init__(self, params, lr=0.01):
        super().__init__(params, {{"lr": lr}})
        for group in self.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]))
{CLOSURE}{STEPS_DOWN}
        return loss
"""),
    "two looks at the loss, as sharpness-aware minimization has": ({}, f"""
    def __init__(self, params, lr=0.01):
        super().__init__(params, {{"lr": lr}})
{CLOSURE}
        every = [p for group in self.param_groups for p in group["params"]]
        ascent = [0.05 * p.grad / (p.grad.norm() + 1e-12) for p in every]
        for p, way in zip(every, ascent):
            p += way
        with torch.enable_grad():
            closure()
        for p, way in zip(every, ascent):
            p -= way
{STEPS_DOWN}
        return loss
"""),
    "another optimizer inside, and a look ahead": ({}, """
    def __init__(self, params, lr=0.01):
        self.inner = torch.optim.SGD(params, lr)
        super().__init__(self.inner.param_groups, {"lr": lr})
        self.param_groups, self.count = self.inner.param_groups, 0
        self.slow = [p.detach().clone() for g in self.param_groups for p in g["params"]]

    def step(self, closure=None):
        loss = self.inner.step(closure)
        self.count += 1
        if self.count % 3 == 0:
            every = [p for group in self.param_groups for p in group["params"]]
            for p, slow in zip(every, self.slow):
                slow += 0.5 * (p.detach() - slow)
                p.data.copy_(slow)
        return loss
"""),
    "train() and eval(), as Schedule-Free has": ({}, f"""
    def __init__(self, params, lr=0.01):
        super().__init__(params, {{"lr": lr, "mode": "eval", "count": 0}})
        self.average = {{p: p.detach().clone() for g in self.param_groups for p in g["params"]}}

    def swap(self, mode):
        for group in self.param_groups:
            if group["mode"] != mode:
                group["mode"] = mode
                for p in group["params"]:
                    before = p.detach().clone()
                    p.data.copy_(self.average[p])
                    self.average[p] = before

    def train(self):
        self.swap("train")

    def eval(self):
        self.swap("eval")
{CLOSURE}
        for group in self.param_groups:
            if group["mode"] != "train":
                raise Exception("not in train mode")
            group["count"] += 1
            for p in group["params"]:
                p -= group["lr"] * p.grad
                self.average[p].lerp_(p, 1 / group["count"])
        return loss
"""),
    "a second derivative": ({"graph": True}, """
    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})

    def step(self, closure=None):
        loss = closure()
        every = [p for group in self.param_groups for p in group["params"]]
        total = sum(p.grad.square().sum() for p in every) / 2
        ways = torch.autograd.grad(total, every)  # the Hessian times the gradient
        with torch.no_grad():
            for p, way in zip(every, ways):
                p -= self.param_groups[0]["lr"] * (p.grad + 0.1 * way)
        return loss
"""),
}  # fmt: skip


def objects(name):
    own, source = KINDS[name]
    source = HEAD + TASK + source
    mode = {"closure": own.get("closure", True), "graph": own.get("graph", False)}
    return own, source, objects_of(source), mode


def maker(found, own, lr=LR):
    return lambda params: found["Mine"](params, **{own.get("rate", "lr"): lr})


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("name", KINDS)
def test_it_has_the_numbers_of_a_plain_loop(name, seeds, small_file):
    own, source, found, mode = objects(name)
    small_file(source)
    words = ["--task", "b.mine", "--optimizers", "b.Mine", "--lr", str(LR), "--seeds", str(seeds)]
    end = run(compare_optimizers, *words)
    plains = [
        plain_training(found["mine"], maker(found, own), SEED + k, **mode) for k in range(seeds)
    ]
    assert_like_plain(end, "b.Mine", plains)
    assert "nothing" not in end.out  # has it moved


@pytest.mark.parametrize("name", KINDS)
def test_a_sweep_has_the_numbers_of_a_plain_loop_at_each_rate(name, small_file):
    own, source, found, mode = objects(name)
    small_file(source)
    words = ["--task", "b.mine", "--optimizers", "b.Mine", "--seeds", "2", "--lr-count", "2"]
    words += ["--judges", "2", "--lr-range", "0.01", "0.1"]
    end = run(compare_learning_rates, *words)
    if "swept" in own:
        assert_refused(end, "b.Mine", *own["swept"], never=["Error"])
        return
    assert_saved(end)
    rows = read_csv()
    assert len(rows) >= 4
    for row in rows:
        if float(row["lr"]) > 0.1:  # the grid has grown, to where training may be chaos
            break
        make = maker(found, own, float(row["lr"]))
        plain = plain_training(found["mine"], make, int(row["seed"]), **mode)
        assert float(row["held_out_loss"]) == near(plain.held_out)
        assert float(row["final_loss"]) == near(plain.final)


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("name", KINDS)
def test_a_schedule_moves_its_rate_or_is_refused(name, seeds, small_file):
    own, source, found, mode = objects(name)
    small_file(source)
    words = ["--task", "b.mine", "--seeds", str(seeds), "--lr", str(LR)]
    end = run(compare_optimizers, *words, "--optimizers", "mine=b.Mine + StepLR(step_size=1)")
    if "scheduled" in own:
        assert_refused(end, "b.Mine", *own["scheduled"], never=["Error"])
        return

    def schedule(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=1)

    plains = [
        plain_training(found["mine"], maker(found, own), SEED + k, schedule, **mode)
        for k in range(seeds)
    ]
    assert_like_plain(end, "mine", plains)
    (panel,) = [axes for axes in plt.gcf().axes if axes.get_ylabel() == "lr"]
    drawn = [list(line.get_ydata()) for line in panel.lines]  # of the first group, at least
    assert [rates[0] for rates in plains[0].rates] in [pytest.approx(rates) for rates in drawn]
    assert {len(rates) for rates in drawn} == {len(plains[0].losses)}


def test_a_batch_size_is_judged_after_eval_and_goes_on_after_train(small_file):
    own, source, found, mode = objects("train() and eval(), as Schedule-Free has")
    small_file(source)
    words = ["--optimizer", "b.Mine", "--lr", str(LR), "--batch-sizes", "20"]
    assert_saved(run(compare_batch_sizes, "--task", "b.mine", *words))
    for epochs, row in enumerate(read_csv()[1:], start=1):
        plain = plain_training(found["mine"], maker(found, own), epochs=epochs, **mode)
        assert float(row["loss"]) == plain.final
        assert float(row["held_out_loss"]) == plain.held_out


@pytest.mark.parametrize("name", KINDS)
def test_its_path_down_a_surface_is_that_of_a_plain_loop(name, small_file):
    own, source, found, mode = objects(name)
    small_file(source)
    end = run(compare_paths, "--optimizers", "b.Mine", "--lr", "0.1", "--steps", "12")
    assert_saved(end)
    assert "nothing" not in end.out
    valley = SURFACES["valley"]
    expected = plain_descent(valley.formula, valley.start, maker(found, own, 0.1), 12, **mode)
    torch.testing.assert_close(path_in_csv("b.Mine"), expected, rtol=1e-6, atol=1e-9)


def test_what_an_optimizer_prints_is_not_amid_the_table(small_file):
    source = (
        HEAD
        + TASK.replace("Optimizer", "Adam")
        + """
    def __init__(self, params, lr=0.01):
        print("Please check your arguments")
        super().__init__(params, lr)

    def step(self, closure=None):
        print("a step")
        return super().step(closure)
"""
    )
    small_file(source)
    words = ["--task", "b.mine", "--optimizers", "Adam", "b.Mine", "SGD", "--seeds", "2"]
    end = run(compare_learning_rates, *words, "--judges", "2", "--lr-count", "3")
    lines = end.out.splitlines()
    table = [
        k for k, line in enumerate(lines) if re.match(r"optimizer|Adam  |b.Mine  |SGD  ", line)
    ]
    assert [k - table[0] for k in table] == [0, 1, 2, 3]
    assert max(end.said.count(text) for text in ("Please check", "a step")) <= 1


def test_with_brackets_or_without_the_rate_is_the_scripts_as_the_page_says(small_file):
    words = ["--optimizers", "Adadelta()", "Adadelta", "own=Adadelta(lr=1.0)"]
    end = run(compare_optimizers, *words, "--epochs", "1", "--task", "parabola(samples=64)")
    losses = [end.rows[label]["loss"] for label in ("Adadelta()", "Adadelta", "own")]
    assert losses[0] == losses[1] != losses[2]
    page = Path(compare_optimizers.__file__).parent / "docs/your_own.md"
    assert "the learning rate is the script's (`--lr`) unless you write it" in page.read_text()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_real_schedule_free_optimizer_is_judged_after_its_eval(seeds, small_file):
    import pytorch_optimizer

    source = HEAD + TASK.partition("class")[0]
    small_file(source)
    label = "pytorch_optimizer.ScheduleFreeAdamW"
    words = ["--task", "b.mine", "--optimizers", label, "--lr", str(LR), "--seeds", str(seeds)]
    end = run(compare_optimizers, *words)

    def make(params):
        return pytorch_optimizer.ScheduleFreeAdamW(params, lr=LR)

    task = objects_of(source)["mine"]
    plains = [plain_training(task, make, SEED + k) for k in range(seeds)]
    assert_like_plain(end, label, plains)
