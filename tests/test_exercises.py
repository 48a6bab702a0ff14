"""The exercises: right solutions, and ten usual mistakes in each.

A teacher finds the solutions here.
"""

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import pytorch_optimizer
import torch
from conftest import exit_status

import exercises
import optimizers
from exercises import EXERCISES, checks, rules
from exercises import __main__ as command

ROOT = Path(__file__).parents[1]

SOLUTIONS = [
    """
LR = 0.5
""",
    """
import torch


class MySGD(torch.optim.Optimizer):
    def __init__(self, params, lr=0.01, weight_decay=0.1):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    grad = param.grad + group["weight_decay"] * param
                    param -= group["lr"] * grad
        return loss
""",
    """
from optimizers import UpdateRule


class MyMomentum(UpdateRule):
    def __init__(self, params, lr=0.01, momentum=0.8):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    def update(self, param, grad, state, group):
        state["v"] = group["momentum"] * state.get("v", 0) + grad
        param -= group["lr"] * state["v"]
""",
    """
from optimizers import UpdateRule


class Averaging(UpdateRule):
    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})

    def update(self, param, grad, state, group):
        state["m"] = 0.8 * state.get("m", 0) + 0.2 * grad
        param -= group["lr"] * state["m"]
""",
    """
from optimizers import UpdateRule


class MyRMSprop(UpdateRule):
    def __init__(self, params, lr=0.01, alpha=0.9, eps=1e-8):
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps})

    def update(self, param, grad, state, group):
        alpha = group["alpha"]
        state["s"] = alpha * state.get("s", 0) + (1 - alpha) * grad**2
        param -= group["lr"] * grad / (state["s"].sqrt() + group["eps"])
""",
    """
from optimizers import UpdateRule


class MyAdam(UpdateRule):
    def __init__(self, params, lr=0.001, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    def update(self, param, grad, state, group):
        beta1, beta2 = group["betas"]
        t = state["step"]
        state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * grad
        state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * grad**2
        m_hat = state["m"] / (1 - beta1**t)
        v_hat = state["v"] / (1 - beta2**t)
        param -= group["lr"] * m_hat / (v_hat.sqrt() + group["eps"])
""",
    """
from optimizers import UpdateRule


class MyAdamW(UpdateRule):
    def __init__(self, params, lr=0.001, betas=(0.9, 0.999), eps=1e-8, decay=0.1):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "decay": decay})

    def update(self, param, grad, state, group):
        beta1, beta2 = group["betas"]
        t = state["step"]
        param -= group["lr"] * group["decay"] * param
        state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * grad
        state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * grad**2
        m_hat = state["m"] / (1 - beta1**t)
        v_hat = state["v"] / (1 - beta2**t)
        param -= group["lr"] * m_hat / (v_hat.sqrt() + group["eps"])
""",
    """
import torch


def clip(params, max_norm):
    grads = [param.grad for param in params if param.grad is not None]
    norm = sum((grad**2).sum() for grad in grads).sqrt()
    if norm > max_norm:
        for grad in grads:
            grad *= max_norm / norm
""",
    """
from optimizers import UpdateRule


class MyLion(UpdateRule):
    def __init__(self, params, lr=0.0001, betas=(0.9, 0.99)):
        super().__init__(params, {"lr": lr, "betas": betas})

    def update(self, param, grad, state, group):
        beta1, beta2 = group["betas"]
        m = state.get("m", 0)
        param -= group["lr"] * (beta1 * m + (1 - beta1) * grad).sign()
        state["m"] = beta2 * m + (1 - beta2) * grad
""",
    """
import torch
from torch import nn
from data import split
from tasks import Task

x = torch.rand(600, 3, generator=torch.Generator().manual_seed(0))
y = x.prod(1, keepdim=True)


def make_data(seed):
    return split(seed, x, y, held_out=100)


def make_net():
    return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1))


mine = Task(make_data, make_net, nn.functional.mse_loss, epochs=20, batch_size=32)
""",
    """
from copy import deepcopy


def reorder(net, order):
    new = deepcopy(net)
    new.hidden.weight.data = net.hidden.weight.data[order]
    new.hidden.bias.data = net.hidden.bias.data[order]
    new.predict.weight.data = net.predict.weight.data[:, order]
    return new
""",
    """CHANGED = ["Adagrad", "RMSprop", "Adam", "Rprop"]
""",
    """LEVEL = 2 / 0.1
""",
]

IN_PLACE = "A step changes the gradient itself"
UPHILL = [("param -=", "param +=")], "The steps go uphill"
STILL = [("param -= ", "param = param - ")], "No step moves anything"
SELF = [("state.get(", "vars(self).get("), ("state[", "vars(self)[")]
SHARED = SELF, "All parameters share one memory"
STEP = "t = state['step']"
T_OF_SELF = "self.t = getattr(self, 't', 0) + 1; t = self.t"
NORM = "norm = sum((grad**2).sum() for grad in grads).sqrt()"
DECAY = "param -= group['lr'] * group['decay'] * param"
SPLIT = "split(seed, x, y, held_out=100)"
LION = "param -= group['lr'] * (beta1 * m + (1 - beta1) * grad).sign()"

# Of each exercise: what a student writes instead, and how the answer begins.
# Where a unit has gone, in place of where it comes from.
BACK = "[[order.index(k) for k in range(len(order))]]"
WRONG = [
    [
        ("LR = 0.25", "0.25 is one over the curvature across the valley"),
        ("LR = 1", "At 1 it diverges, but also at lower rates. The slope"),
        ("LR = 5.0", "5 is one over the curvature along the valley"),
        ("LR = 10", "At 10 it diverges along the valley, too"),
        ("LR = 0.4", "At 0.4 it does not diverge: after 50 steps y is 8.08e-12 times"),
        ("LR = 0.6", "At 0.6 it diverges, but also at lower rates: after 50 steps y is 2.02e+07"),
        ("LR = -0.5", "A learning rate is above 0"),
        ("LR = float('inf')", "A learning rate is above 0"),
        ("LR = '0.5'", "It has to be a number."),
        ("lr = 0.5", "The file defines no LR."),
    ],
    [
        ([("param.grad + group['weight_decay'] * param", "param.grad")], "The decay is missing"),
        ([("grad + group", "grad - group")], "The decay has the wrong sign"),
        (
            [
                ("param.grad + group['weight_decay'] * param", "param.grad"),
                ("param -= ", "param -= group['weight_decay'] * param + "),
            ],
            "The decay is not multiplied by lr",
        ),
        ([("group['weight", "group['lr'] * group['weight")], "The decay is multiplied by lr twice"),
        ([("group['weight", "2 * group['weight")], "The decay counts twice"),
        UPHILL,
        STILL,
        ([("param.grad + ", "param.grad.add_("), (" * param\n", " * param)\n")], IN_PLACE),
        ([("group['lr'] * grad", "group['lr'] * grad / 2")], "Step 1 is the first to differ"),
        ([("    @torch.no_grad()\n", "")], "It fails at line 16: RuntimeError: a leaf Variable"),
        ([("closure()", "torch.tensor(1.0)")], "`step` does not call the closure"),
        ([("torch.enable_grad()", "torch.no_grad()")], "The closure is called under torch.no_grad"),
        ([("        return loss\n", "")], "`step` has to return the loss"),
    ],
    [
        ([("+ grad", "+ (1 - group['momentum']) * grad")], "The new gradient is multiplied by 1"),
        ([("+ grad", "+ group['lr'] * grad"), ("group['lr'] * state", "state")], "lr is inside"),
        ([("* state['v']\n", "* (grad + 0.8 * state['v'])\n")], "That is Nesterov's"),
        ([("state['v'] = ", "v = "), ("* state['v']", "* v")], "The velocity is forgotten"),
        ([("momentum=0.8", "momentum=1")], "The velocity never fades"),
        (
            [("* state['v']", "* v"), ("state['v'] =", "v = state.get('v', 0); state['v'] =")],
            "θ moves by the velocity of the step before",
        ),
        SHARED,
        UPHILL,
        ([("+ grad", "+ grad.mul_(1.1)")], IN_PLACE),
        ([("param -=", "self.zero_grad(); param -=")], IN_PLACE),
        ([("momentum=0.8", "momentum=0.9")], "Step 2 is the first to differ"),
    ],
    [
        ([("state.get('m', 0)", "state.get('m', grad)")], "The average starts as the first"),
        ([("0.2 * grad", "grad")], "The steps are five times too long"),
        ([("* state['m']\n", "* 5 * state['m']\n")], "The steps are five times too long"),
        ([("0.8 * state", "0.2 * state"), ("0.2 * grad", "0.8 * grad")], "0.8 and 0.2 are swapped"),
        (
            [("* state['m']\n", "* state['m'] / (1 - 0.8 ** state['step'])\n")],
            "The average is corrected",
        ),
        ([("state['m'] = ", "m = "), ("* state['m']", "* m")], "The average is forgotten"),
        SHARED,
        UPHILL,
        ([("+ 0.2 * grad", "+ grad.mul_(0.2)")], IN_PLACE),
        STILL,
    ],
    [
        ([(".sqrt()", "")], "The root is missing: divide by √s"),
        ([("alpha = group['alpha']", "alpha = 1 - group['alpha']")], "alpha and 1 - alpha are sw"),
        ([("(1 - alpha) * ", ""), ("alpha * ", "")], "The squares add up"),
        ([("alpha=0.9", "alpha=0.99")], "alpha is torch's default"),
        ([("grad**2", "grad.abs()")], "s averages |g|"),
        ([("grad**2", "grad")], "s averages g, and not g²"),
        ([("get('s', 0)", "get('s', 1)")], "s starts at 1"),
        SHARED,
        UPHILL,
        ([("* grad**2", "* grad.pow_(2)")], IN_PLACE),
    ],
    [
        (
            [(" / (1 - beta1**t)", ""), (" / (1 - beta2**t)", "")],
            "The bias correction is",
        ),
        ([(" / (1 - beta2**t)", "")], "v is not corrected"),
        ([(" / (1 - beta1**t)", "")], "m is not corrected"),
        ([("**t", "")], "The correction divides by 1 - beta at every step"),
        (
            [("m_hat = ", "m_hat = state['m'] = "), ("v_hat = ", "v_hat = state['v'] = ")],
            "The corrected m and v go into the memory",
        ),
        ([("beta1, beta2 = group", "beta2, beta1 = group")], "The betas are swapped"),
        ([(STEP, T_OF_SELF), *SELF], "All parameters share one memory"),
        ([(STEP, T_OF_SELF)], "The count grows with every parameter"),
        ([(STEP, STEP + " - 1")], "The first step is counted as 0"),
        ([("* grad**2", "* grad.abs()")], "v averages |g|"),
    ],
    [
        ([(DECAY, "grad = grad + group['decay'] * param")], "The decay is added to the gradient"),
        ([("decay", "weight_decay")], "The decay counts twice"),
        ([(DECAY, "param -= group['decay'] * param")], "The decay is not multiplied by lr"),
        ([(DECAY, "pass")], "The decay is missing"),
        ([("param -= group['lr'] * group", "param += group['lr'] * group")], "The decay has the"),
        ([("decay=0.1", "decay=0.01")], "weight_decay is torch's default"),
        ([(STEP, T_OF_SELF), *SELF], "All parameters share one memory"),
        STILL,
        ([(STEP, STEP + " - 1")], "The first step is counted as 0"),
        ([(DECAY, "grad.add_(group['decay'] * param)")], IN_PLACE),
    ],
    [
        ([("grad *= max_norm / norm", "grad = grad * max_norm")], "The gradients stay as they are"),
        (
            [(NORM, "[g.mul_(min(1, max_norm / g.norm())) for g in grads]; return")],
            "Each parameter is clipped by its own norm",
        ),
        ([(NORM, "[grad.clamp_(-1, 1) for grad in grads]; return")], "Each element is clipped"),
        ([("if norm > max_norm", "if True")], "Short gradients are made longer"),
        ([("max_norm / norm", "norm / max_norm")], "The factor is upside down"),
        ([(".sqrt()", "")], "The root is missing: the norm"),
        ([(NORM, "norm = max(grad.abs().max() for grad in grads)")], "That is the largest element"),
        ([("norm > max_norm", "norm < max_norm")], "It clips where the norm is below"),
        (
            "def clip(params, max_norm):\n"
            "    norm = sum((p.grad**2).sum() for p in params if p.grad is not None).sqrt()\n"
            "    for p in params:\n"
            "        if p.grad is not None:\n"
            "            p.grad *= min(1, max_norm / norm)\n",
            "It goes through the parameters twice",
        ),
        ([("grads = [param.grad", "grads = [param.data")], "It changes the parameters"),
        (
            "def clip(params, max_norm):\n    for param in params:\n        param.grad = None\n",
            "With max_norm 1, gradients of norm 16.85 have to get the norm 1, and get 0;",
        ),
    ],
    [
        ([(".sign()", "")], "The sign is missing"),
        (
            [(LION, ""), (") * grad\n", ") * grad; param -= group['lr'] * state['m'].sign()\n")],
            "The step is the sign of the new m",
        ),
        ([("beta1, beta2 = group", "beta2, beta1 = group")], "The betas are swapped"),
        ([("beta2 * m + (1 - beta2)", "beta1 * m + (1 - beta1)")], "beta1 is used for m, too"),
        ([("* grad\n", "* grad.sign()\n")], "m averages the signs"),
        ([(LION, "param -= group['lr'] * grad.sign()")], "That is the sign of the gradient alone"),
        SHARED,
        UPHILL,
        ([("1 - beta2) * grad\n", "1 - beta2) * grad.mul_(2)\n")], IN_PLACE),
        STILL,
    ],
    [
        ("mine = 3", "It has to be a Task"),
        (
            [("prod(1, keepdim=True)", "prod(1)")],
            "The parts do not go together: its net has",
        ),
        ([("Linear(3, 16)", "Linear(2, 16)")], "The parts do not go together: its net cannot take"),
        (
            [("y = x", "x[5] = float('nan'); y = x")],
            "The parts do not go together: its data",
        ),
        (
            [(SPLIT, SPLIT + "[0]")],
            "The parts do not go together: make_data(seed) has to",
        ),
        (
            [(SPLIT, f"{SPLIT}[0], {SPLIT}[0]")],
            "500 of the 500 held-out inputs are also in the training data",
        ),
        ([("split(seed,", "split(0,")], "make_data(0) and make_data(1) are the same"),
        (
            [("split(seed,", "split(torch.randint(99, ()).item(),")],
            "make_data(0) is different",
        ),
        (
            [("x.prod(1, keepdim=True)", "torch.randn(600, 1)")],
            "Adam at lr=0.01 lowers",
        ),
        ([("mse_loss, ", "mse_loss + 1, ")], "It fails at line 19: TypeError"),
    ],
    [
        (
            "def reorder(net, order):\n    from copy import deepcopy\n    return deepcopy(net)\n",
            "Nothing has moved",
        ),
        ([("bias.data[order]", "bias.data")], "The hidden units' biases stay"),
        ([("[:, order]", "")], "The columns of predict.weight stay"),
        (
            [("hidden.weight.data[order]", "hidden.weight.data.clone()")],
            "The rows of hidden.weight",
        ),
        ([("bias.data[order]", "bias.data"), ("[:, order]", "")], "Only the rows of hidden.weight"),
        (
            [("weight.data[order]", "weight.data"), ("bias.data[order]", "bias.data")],
            "Only the col",
        ),
        (
            [("[:, order]", BACK.replace("[", "[:, ", 1))],
            "The columns of predict.weight go the oth",
        ),
        ([("bias.data[order]", "bias.data" + BACK)], "The biases go the other way"),
        (
            [("    new =", "    order = [order.index(k) for k in range(len(order))]\n    new =")],
            "All go the other way",
        ),
        (
            [("    new =", "    order = list(range(len(order)))[::-1]\n    new =")],
            "The order is not used",
        ),
        ([("    new = deepcopy(net)", "    new = net")], "It changes the old net"),
        ([("    return new\n", "")], "It has to return a net"),
        (
            [("    return new", "    new.predict.bias.data = net.predict.bias.data; return new")],
            "The new",
        ),
        ([("    return new", "    new.predict.bias.data += 1; return new")], "The outputs are not"),
        (
            [("    new =", "    order = order[::-1]\n    new =")],
            "The outputs stay the same, but unit k is not",
        ),
        ([("new.hidden.bias.data =", "new.hidden.bias =")], "It fails at line 8: TypeError"),
    ],
    [
        ([("'Adagrad', ", "")], "Adagrad is missing"),
        ([("'RMSprop', ", "")], "RMSprop is missing"),
        ([("'Adam', ", "")], "Adam is missing"),
        ([(", 'Rprop'", "")], "Rprop is missing"),
        ([("[", '["SGD", ')], "SGD does not change"),
        ([("[", '["Momentum", ')], "Momentum does not change"),
        ([("[", '["SGD(weight_decay=0.1)", ')], "SGD(weight_decay=0.1) does not change"),
        ([("[", '["adam", ')], "There is no 'adam' in the command"),
        ([("[", "[1, ")], "It has to be a list of names"),
        ('CHANGED = "Adam"', "It has to be a list of names"),
    ],
    [
        ("LEVEL = 10", "10 is one over the rate"),
        ("LEVEL = 13.8", "13.8 is where it starts"),
        ("LEVEL = 40", "40 would be the limit at half the rate"),
        ("LEVEL = 38", "38 would be the limit with a momentum"),
        ("LEVEL = 380", "380 would be Adam's limit"),
        ("LEVEL = 5", "5 is half over the rate"),
        ("LEVEL = 0.1", "0.1 is the rate"),
        ("LEVEL = 17", "At 17 steps at a rate of 0.1 still shrink: each is 0.7 times"),
        ("LEVEL = 25", "At 25 steps at a rate of 0.1 grow: each is 1.5 times"),
        ("LEVEL = -20", "It has to be a number above 0"),
        ("LEVEL = True", "It has to be a number above 0"),
        ("LEVEL = '20'", "It has to be a number above 0"),
    ],
]


def answer(number, text, tmp_path):
    """Return what the check says of a file with this text."""
    path = tmp_path / "my_file.py"
    path.write_text(text, encoding="utf-8")
    return command.check_file(number, path)


def changed(solution, changes):
    """Return a solution with changes in it: ("old", "new"), or a text of its own."""
    if isinstance(changes, str):
        return changes
    solution = solution.replace('"', "'")
    for old, new in changes:
        assert old in solution
        solution = solution.replace(old, new)
    return solution


@pytest.mark.parametrize("number", range(1, len(EXERCISES) + 1))
def test_a_right_solution_is_right(number, tmp_path):
    assert answer(number, SOLUTIONS[number - 1], tmp_path) is None


CASES = [(n, *case) for n, wrong in enumerate(WRONG, start=1) for case in wrong]


@pytest.mark.parametrize(("number", "changes", "sentence"), CASES)
def test_a_wrong_solution_is_told_what_is_wrong(number, changes, sentence, tmp_path):
    finding = answer(number, changed(SOLUTIONS[number - 1], changes), tmp_path)
    assert str(finding).startswith(sentence)
    chinese = command.in_words(finding.sentence, finding.values, chinese=True)
    assert re.search(r"[\u4e00-\u9fff]", chinese)


def test_a_mistake_that_is_on_no_list_is_named_by_the_catalogue(tmp_path):
    text = changed(SOLUTIONS[5], [("beta1**t)", "beta1 ** (t + 1))")])
    finding = answer(6, text, tmp_path)
    assert str(finding).startswith(
        "A power is wrong. The numbers are as if, in optimizers/, `m_hat"
    )
    words = command.in_words(finding.sentence, finding.values, chinese=True)
    assert words.startswith("有一个次方写错了。这些数就像是")


def test_each_exercise_has_its_text_and_ten_mistakes():
    assert len(EXERCISES) == len(SOLUTIONS) == len(WRONG) >= 10
    assert min(len(wrong) for wrong in WRONG) == 10
    numbers = list(range(1, len(EXERCISES) + 1))
    for chinese in (False, True):
        sections = command.texts(chinese)
        assert [int(section.split(".")[0]) for section in sections] == numbers
        for number, (section, exercise) in enumerate(zip(sections, EXERCISES, strict=True), 1):
            flag = " --zh" if chinese else ""
            assert f"\npython -m exercises{flag} {number} my_file.py\n" in section
            assert re.search(rf"`{exercise.name}\b", section)


@pytest.mark.parametrize(
    ("rule", "reference"),
    [
        (rules.sgd, partial(torch.optim.SGD, weight_decay=0.1)),
        (rules.momentum, partial(torch.optim.SGD, momentum=0.8)),
        (rules.nesterov, partial(torch.optim.SGD, momentum=0.8, nesterov=True)),
        (rules.rmsprop, partial(torch.optim.RMSprop, alpha=0.9)),
        (rules.adagrad, partial(torch.optim.Adagrad, eps=1e-8)),
        (rules.adam, torch.optim.Adam),
        (rules.adamw, partial(torch.optim.AdamW, weight_decay=0.1)),
        (rules.adam_with_l2, partial(torch.optim.Adam, weight_decay=0.1)),
        (rules.lion, partial(pytorch_optimizer.Lion, betas=(0.9, 0.99))),
        (rules.lion, optimizers.Lion),
    ],
)
def test_the_rules_are_those_of_published_optimizers(rule, reference):
    torch.testing.assert_close(checks.path_of_rule(rule), checks.path_of_optimizer(reference))


def test_our_lion_is_a_right_answer_and_the_answer_takes_its_steps():
    number = [exercise.name for exercise in EXERCISES].index("MyLion") + 1
    assert exercises.check(number, {"MyLion": optimizers.Lion}) is None
    namespace = {}
    exec(SOLUTIONS[number - 1], namespace)
    answer, ours = (checks.path_of_optimizer(one) for one in (namespace["MyLion"], optimizers.Lion))
    torch.testing.assert_close(answer, ours, rtol=0, atol=0)


RULES = {
    "SGD": rules.sgd,
    "MOMENTUM": rules.momentum,
    "AVERAGING": rules.momentum,
    "RMSPROP": rules.rmsprop,
    "ADAM": rules.adam,
    "ADAMW": rules.adamw,
    "LION": rules.lion,
}


@pytest.mark.parametrize(("name", "rule"), RULES.items())
def test_a_mistakes_numbers_are_its_own(name, rule):
    mistakes = vars(rules)[f"{name}_MISTAKES"].values()
    wrong_uses = [{"sign": -1}, {"shared_memory": True}] if name != "SGD" else [{"sign": -1}]
    wrong_uses += [{"first_count": 0}, {"counts_per_step": 2}] if "ADAM" in name else []
    paths = [checks.path_of_rule(one) for one in [rule, *mistakes]]
    paths += [checks.path_of_rule(rule, **wrong_use) for wrong_use in wrong_uses]
    for k, one in enumerate(paths):
        for other in paths[:k]:
            assert not checks.are_close(one, other)


def sentences():
    """Return all that a check may say."""
    said = set()
    for module in (exercises, checks, rules):
        for name, value in vars(module).items():
            if name.isupper() and isinstance(value, str):
                said.add(value)
            elif name.endswith("_MISTAKES"):
                said |= {text for pair in value.items() for text in pair if isinstance(text, str)}
    return said


def test_each_sentence_has_its_chinese():
    chinese = json.loads((command.HERE / "chinese.json").read_text(encoding="utf-8"))
    assert chinese.keys() == sentences()
    for english, other in chinese.items():
        numbers = [sorted(re.findall(r"{.*?}", text)) for text in (english, other)]
        assert numbers[0] == numbers[1], english
        assert re.search(r"[\u4e00-\u9fff]", other)


def test_the_command_lists_reads_and_checks(tmp_path, capsys):
    assert exit_status(command.main, []) == 0
    titles = capsys.readouterr().out.splitlines()
    assert len(titles) == len(EXERCISES)
    assert exit_status(command.main, ["--zh", "6"]) == 0
    assert capsys.readouterr().out.startswith("6. 写 Adam\n")
    assert exit_status(command.main, ["all"]) == 0
    out = capsys.readouterr().out
    assert all(title in out for title in titles)
    long = [line for line in out.splitlines() if len(line) > 80]
    assert all(line.startswith("python ") for line in long)
    path = tmp_path / "my_file.py"
    path.write_text(SOLUTIONS[0])
    assert exit_status(command.main, ["1", str(path)]) == 0
    assert capsys.readouterr().out == "Exercise 1 is right.\n"
    path.write_text("LR = 0.25")
    assert exit_status(command.main, ["--zh", "1", str(path)]) == 1
    assert capsys.readouterr().out.startswith("0.25 是横向曲率的倒数")
    path.write_text("LR = ")
    assert exit_status(command.main, ["1", str(path)]) == 1
    out = capsys.readouterr().out
    assert out == "It fails: SyntaxError: invalid syntax (my_file.py, line 1)\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["99"], f"'99' is not a number from 1 to {len(EXERCISES)}, or all"),
        (["one"], f"'one' is not a number from 1 to {len(EXERCISES)}, or all"),
        (["1", "nowhere.py"], "there is no file 'nowhere.py'"),
        (["1", "."], "there is no file '.'"),
    ],
)
def test_wrong_words_are_refused(words, message, capsys):
    assert exit_status(command.main, words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_one_file_is_checked_for_all(tmp_path, capsys):
    path = tmp_path / "my_file.py"
    path.write_text(SOLUTIONS[0] + SOLUTIONS[7])
    assert exit_status(command.main, ["all", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0], lines[7]] == ["Exercise 1 is right.", "Exercise 8 is right."]
    assert lines[1] == "2. The file defines no MySGD."
    assert len(lines) == len(EXERCISES)


def test_it_runs_as_a_module_and_finds_what_lies_beside_the_file(tmp_path):
    (tmp_path / "other.py").write_text("HALF = 0.5")
    (tmp_path / "my_file.py").write_text("from other import HALF\nLR = HALF\n")
    words = [sys.executable, "-m", "exercises", "1", str(tmp_path / "my_file.py")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Exercise 1 is right.\n", "")
