"""check_optimizer.py: real errors are named, right optimizers are right, and it never breaks."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import pytorch_optimizer
import schedulefree
import torch
from conftest import assert_refused, exit_status
from torch.optim import Optimizer

import check_optimizer
import optimizers
from check_optimizer import Findings, cases, check, compare_with, lines, maker_of
from checks import contract, finding, known, mistakes, problems, same_steps
from checks.contract import CHECKS, profile, run_all, run_check, subject_of
from checks.maker import KINDS, Maker
from checks.mistakes import catalogue
from checks.problems import PROBLEMS, Solver, passed
from tests import mutator

ROOT = Path(__file__).parents[1]
RULES = [name for name in optimizers.__all__ if name != "UpdateRule"]


def compared(mine, like):
    findings = Findings(mine if isinstance(mine, Maker) else maker_of(mine))
    compare_with(findings, maker_of(like))
    return findings


# ---------------------------------------------------------------- real errors, as small classes


class RightAdam(Optimizer):
    """Adam from torch.optim.Optimizer alone; each error is in a subclass."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, **more):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults | more)

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for number, p in enumerate(group["params"], 1):
                if p.grad is None:
                    continue
                state, (beta1, beta2) = self.state[p], group["betas"]
                if not state:
                    state |= {"t": 0, "m": p * 0, "v": p * 0, "largest": p * 0}
                state["t"] += 1
                grad = p.grad + self.added(p, group, number)
                state["m"].mul_(beta1).add_(grad, alpha=1 - beta1)
                state["v"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                correction = 1 - beta2 ** state["t"]
                self.move(p, state["m"] / (1 - beta1 ** state["t"]), state, correction, group)
        return loss

    def added(self, p, group, number):
        return group["weight_decay"] * p

    def move(self, p, m, state, correction, group):
        v = state["v"] / correction
        p -= group["lr"] * m / (v.sqrt() + group["eps"])


class DecaysLate(RightAdam):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params, lr, betas, eps, weight_decay)

    def added(self, p, group, number):
        return 0

    def move(self, p, m, state, correction, group):
        super().move(p, m, state, correction, group)
        p -= group["lr"] * group["weight_decay"] * p


class EpsOutside(RightAdam):
    def move(self, p, m, state, correction, group):
        p -= group["lr"] * m / (state["v"] / correction).sqrt() + group["eps"]


class EpsOfTheTextbook(RightAdam):
    def move(self, p, m, state, correction, group):
        p.copy_(p - group["lr"] * m / (state["v"] / correction).sqrt() + group["eps"])


class EpsInside(RightAdam):
    def move(self, p, m, state, correction, group):
        p -= group["lr"] * m / (state["v"] / correction + group["eps"]).sqrt()


class EpsScaled(RightAdam):
    def move(self, p, m, state, correction, group):
        p -= group["lr"] * math.sqrt(correction) * m / (state["v"].sqrt() + group["eps"])


class ForgetsTheMaximum(RightAdam):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, amsgrad=True):
        super().__init__(params, lr, betas, eps, amsgrad=amsgrad)

    def move(self, p, m, state, correction, group):
        v = state["v"]
        if group["amsgrad"]:
            v = torch.maximum(state["largest"], v)
        p -= group["lr"] * m / ((v / correction).sqrt() + group["eps"])


class Coupled(RightAdam):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params, lr, betas, eps, weight_decay)


class DecaysItsNumber(RightAdam):
    def added(self, p, group, number):
        return group["weight_decay"] * number


REAL = [
    (DecaysLate, "AdamW", "huggingface/transformers/issues/14539"),
    (EpsOutside, "Adam", "d2l-ai/d2l-en/issues/2691"),
    (EpsOfTheTextbook, "Adam", "d2l-ai/d2l-en/issues/2691"),
    (EpsInside, "Adam", "keras-team/keras/issues/17391"),
    (EpsScaled, "Adam", "tensorflow/tensorflow/issues/9047"),
    (ForgetsTheMaximum, "Adam(amsgrad=True)", "pytorch/pytorch/issues/78807"),
    (Coupled, "AdamW", "pytorch/pytorch/issues/88836"),
    (DecaysItsNumber, "Adam", "mlverse/torch/issues/821"),
]


@pytest.mark.parametrize(("wrong", "like", "link"), REAL)
def test_a_real_error_is_named_with_its_link(wrong, like, link):
    findings = compared(wrong, like)
    links = {mistake.link for mistake in mistakes.told(findings.mistakes)}
    assert links - {""} == {f"https://github.com/{link}"}
    assert f"https://github.com/{link}" in "\n".join(lines(findings))


def test_each_real_error_has_a_class_here_and_a_line_on_the_page():
    pages = [ROOT / "docs" / f"check_optimizer{end}.md" for end in ("", ".zh-CN")]
    links = {entry.link for entry in known.KNOWN} - {""}
    assert {f"https://github.com/{link}" for _, _, link in REAL} == links
    for page in pages:
        assert all(link in page.read_text(encoding="utf-8") for link in links)


# ---------------------------------------------------------------- right ones are right


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adafactor", "Muon", "SparseAdam"])
def test_our_rules_take_torchs_steps(name):
    findings = compared(f"optimizers.{name}", name)
    assert findings.sentences() == []
    assert len(findings.comparison.walks) >= 15


def test_an_adam_written_otherwise_takes_the_same_steps():
    assert compared(RightAdam, "Adam").sentences() == []


def test_a_default_that_differs_is_told_and_the_rest_compared():
    class Hasty(RightAdam):
        def __init__(self, params, lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0):
            super().__init__(params, lr, betas, eps, weight_decay)

    assert compared(Hasty, "Adam(betas=(0.9, 0.99))").sentences() == []
    (sentence,) = compared(Hasty, "Adam").sentences()
    assert sentence.startswith("Its betas is (0.9, 0.99) by default, and (0.9, 0.999) in Adam")


def test_a_number_that_is_fixed_inside_is_named():
    class Fixed(RightAdam):
        def __init__(self, params, lr=0.1, betas=(0.9, 0.999)):
            super().__init__(params, lr, betas, eps=1e-7)

    findings = compared(Fixed, "Adam")
    said = [m.sentence.format(**m.values) for m in findings.mistakes]
    assert said == ["It has eps=1e-07, where Adam has eps=1e-08."]


def test_ten_digits_are_not_asked_for_but_nine_are():
    def off_by(part):
        class Off(torch.optim.SGD):
            def __init__(self, params, lr=0.01):
                super().__init__(params, lr)

            @torch.no_grad()
            def step(self, closure=None):
                super().step(closure)
                for param in self.param_groups[0]["params"]:
                    param *= 1 + part

        return Off

    assert compared(off_by(1e-15), "SGD").sentences() == []
    assert len(compared(off_by(1e-8), "SGD").sentences()) == 1


# ---------------------------------------------------------------- the catalogue


def test_there_are_hundreds_of_mistakes_for_each_rule():
    for rule in (optimizers.SGD, optimizers.RMSprop, optimizers.Adam):
        assert len(catalogue(rule)) > 300


def test_each_known_mistake_belongs_to_a_rule():
    """Or the rule's text has changed, and the mistake would never be named again."""
    sources = {
        part.source for name in RULES for part in mistakes.parts_of(getattr(optimizers, name))
    }
    for entry in known.KNOWN:
        assert any(all(old in source for old, _ in entry.changes) for source in sources), entry


@pytest.mark.parametrize("seed", range(3))
def test_a_change_at_random_is_found_and_named(seed):
    """300 of them: python -m tests.mutator 0 300."""
    changes, found, _, is_named, words = mutator.judge(seed)
    assert found == changes, words
    assert is_named in (None, True), words


def test_the_judge_of_changes_is_right_about_what_is_not_changed():
    assert not mutator.changes_a_number("Adam", optimizers.Adam)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_made_anew_from_its_source_takes_the_same_steps(name):
    rule = getattr(optimizers, name)
    expected = subject_of(Maker(name, rule)).path()
    parts = mistakes.parts_of(rule)
    for part in {part.module: part for part in parts}.values():
        anew = Maker(name, mistakes.with_change(rule, part, part.source))
        torch.testing.assert_close(subject_of(anew).path(), expected, rtol=0, atol=0)


def test_a_rule_of_ones_own_has_mistakes_too():
    """What --like names may be any UpdateRule, of which the source can be read."""
    findings = compared(Flipped, "test_check_optimizer.Halved")
    assert any(mistake.sentence == mistakes.SIGN for mistake in findings.mistakes)


class Halved(optimizers.UpdateRule):
    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})

    def update(self, param, grad, state, group):
        state["m"] = state.get("m", 0) / 2 + grad
        param -= group["lr"] * state["m"]


class Flipped(Halved):
    def update(self, param, grad, state, group):
        state["m"] = state.get("m", 0) / 2 - grad
        param -= group["lr"] * state["m"]


# ---------------------------------------------------------------- what has to hold


def wrong_of(make):
    return {result.words for result in run_all(subject_of(make)) if result.finding}


@pytest.mark.parametrize("name", RULES)
def test_our_rules_hold_to_it(name):
    """But for Rprop, whose lr is that of the first step alone: no schedule can change it."""
    expected = {"schedulers take effect"} if name == "Rprop" else set()
    assert wrong_of(Maker(name, getattr(optimizers, name))) == expected


# Of torch and of pytorch_optimizer: what is wrong, each looked at in its source.
FAULTS = {
    torch.optim.Adam: set(),
    torch.optim.LBFGS: set(),
    torch.optim.Muon: set(),
    torch.optim.Adafactor: {"empty parameters do no harm"},  # divides by the number of elements
    pytorch_optimizer.Lion: set(),
    pytorch_optimizer.AdaBelief: set(),
    pytorch_optimizer.Lamb: set(),
    schedulefree.SGDScheduleFree: set(),  # which wants a call of train() before the first step
    pytorch_optimizer.ScheduleFreeAdamW: {"gradients are not changed"},  # grad.div_
    pytorch_optimizer.AdaBound: {"a group may be added later"},  # a list of first rates
    pytorch_optimizer.Prodigy: {"param groups have their own lr"},  # the first group's, for all
    pytorch_optimizer.Adan: {"`maximize` is right, or refused"},  # its first difference
    pytorch_optimizer.Adai: {"a gradient of 0 does no harm"},  # 0 / 0
    pytorch_optimizer.ApolloDQN: {  # eps /= ... inside the loop over parameters; a warm-up's lr
        "parameters share no memory",
        "param groups have their own lr",
        "schedulers take effect",
    },
}


@pytest.mark.parametrize("optimizer_class", FAULTS)
def test_others_have_the_faults_that_they_have(optimizer_class):
    assert wrong_of(Maker(optimizer_class.__name__, optimizer_class)) == FAULTS[optimizer_class]


class Plain(Optimizer):
    """Gradient descent with momentum, right in all; each fault is in a subclass."""

    def __init__(self, params, lr=0.01):
        if lr < 0:
            raise ValueError("lr")
        super().__init__(params, {"lr": lr})
        self.lr, self.memory = lr, {}

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.one(p, p.grad, group)
        return loss

    def one(self, p, grad, group):
        self.state[p]["v"] = 0.5 * self.state[p].get("v", 0) + grad
        p -= group["lr"] * self.state[p]["v"]


def plain_with(one):
    return type("Wrong", (Plain,), {"one": one})


def in_self(self, p, grad, group):
    self.memory[p] = 0.5 * self.memory.get(p, 0) + grad
    p -= group["lr"] * self.memory[p]


def one_count(self, p, grad, group):
    self.count = getattr(self, "count", 0) + 1
    p -= group["lr"] * grad / self.count


def keeps_the_gradient(self, p, grad, group):
    p -= group["lr"] * (grad + self.state[p].get("last", 0))
    self.state[p]["last"] = grad


class NoClosure(Plain):
    def step(self):
        return super().step()


class NeedsClosure(Plain):
    def step(self, closure):
        return super().step(closure)


class ForgetsLoss(Plain):
    def step(self, closure=None):
        super().step(closure)


class WithoutGrad(Plain):
    @torch.no_grad()
    def step(self, closure=None):
        loss = closure() if closure else None
        super().step()
        return loss


class FirstGroup(Plain):
    def __init__(self, params, lr=0.01):
        super().__init__(params, lr)
        self.mine = [p for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def step(self, closure=None):
        loss = torch.enable_grad()(closure)() if closure else None
        for p in self.mine:
            if p.grad is not None:
                self.one(p, p.grad, self.param_groups[0])
        return loss


class NegativeRates(Plain):
    def __init__(self, params, lr=0.01):
        super().__init__(params, abs(lr))


class Maximizes(Plain):
    def __init__(self, params, lr=0.01, maximize=False):
        super().__init__(params, lr)


OUTLIVES: dict = {}


def outlives(self, p, grad, group):
    OUTLIVES["n"] = OUTLIVES.get("n", 0) + 1
    p -= group["lr"] * grad / OUTLIVES["n"]


WRONG = [
    (plain_with(lambda self, p, grad, group: None), contract.NOT_CHANGED),
    (plain_with(lambda self, p, grad, group: p.mul_(math.nan)), contract.NOT_FINITE),
    (plain_with(lambda self, p, grad, group: p.add_(grad, alpha=group["lr"])), contract.UPHILL),
    (NoClosure, contract.NO_CLOSURE),
    (NeedsClosure, contract.CLOSURE_NEEDED),
    (ForgetsLoss, contract.LOSS_NOT_RETURNED),
    (WithoutGrad, contract.CLOSURE_WITHOUT_GRAD),
    (plain_with(lambda self, p, grad, group: p.sub_(grad.mul_(0.1))), contract.GRADIENT_CHANGED),
    (plain_with(lambda self, p, g, group: p.sub_(group["lr"] * g / g.abs())), contract.ZERO),
    (FirstGroup, contract.ONE_RATE),
    (FirstGroup, contract.NOT_ADDED),
    (plain_with(lambda self, p, grad, group: p.sub_(self.lr * grad)), contract.NO_SCHEDULE),
    (plain_with(in_self), contract.STATE_LOST),
    (plain_with(outlives), contract.NOT_TWICE),
    (plain_with(one_count), contract.SHARED),
    (plain_with(keeps_the_gradient), contract.ALIASED),
    (NegativeRates, contract.NEGATIVE),
    (Maximizes, contract.NOT_MAXIMIZED),
]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG)
def test_a_fault_is_told(wrong, sentence):
    said = {
        result.finding.sentence
        for result in run_all(subject_of(Maker("", wrong)))
        if result.finding
    }
    assert sentence in said


def test_the_plain_one_has_no_fault():
    assert wrong_of(Maker("", Plain)) == set()


def test_state_in_float32_is_told():
    def one(self, p, grad, group):
        self.state[p].setdefault("v", torch.zeros(p.shape)).add_(grad)
        p -= group["lr"] * self.state[p]["v"]

    assert wrong_of(Maker("", plain_with(one))) == {"float64 stays float64"}


@pytest.mark.parametrize(
    ("optimizer_class", "elements", "parameters", "memory"),
    [
        (torch.optim.SGD, False, False, 0),
        (torch.optim.Adam, False, False, 2),
        (optimizers.Adafactor, True, False, 1 / 32),
        (torch.optim.LBFGS, True, True, 4),
        (pytorch_optimizer.Lamb, True, False, 2),
        (pytorch_optimizer.Lion, False, False, 1),
    ],
)
def test_what_it_couples_and_keeps(optimizer_class, elements, parameters, memory):
    of = profile(subject_of(Maker("", optimizer_class)))
    assert (of.elements, of.parameters) == (elements, parameters)
    assert of.memory == pytest.approx(memory, abs=0.01)
    assert of.time > 0


# ---------------------------------------------------------------- the problems have teeth


def level(problem, optimizer_class, **keywords):
    return passed(PROBLEMS[problem], Solver(Maker("", optimizer_class, keywords), KINDS[0]))


SGD, ADAM = torch.optim.SGD, torch.optim.Adam
SIGN = pytorch_optimizer.SignSGD


@pytest.mark.parametrize("problem", ["two scales", "tiny gradients", "huge gradients", "plateau"])
def test_adam_bears_scales_that_gradient_descent_does_not(problem):
    assert level(problem, ADAM) >= level(problem, SGD) + 3


def test_adam_depends_on_the_axes_and_gradient_descent_does_not():
    assert level("valley", SGD) == level("turned valley", SGD)
    assert level("valley", ADAM) >= level("turned valley", ADAM) + 2


def test_momentum_goes_down_a_valley_faster():
    assert level("turned valley", SGD, momentum=0.8) >= level("turned valley", SGD) + 2


def test_the_sign_is_misled_by_skewed_noise_and_not_by_heavy_tails():
    assert level("skewed noise", SIGN, momentum=0.0) <= level("skewed noise", SGD) - 2
    assert level("heavy tails", SIGN, momentum=0.0) >= level("heavy tails", SGD)


def test_steps_of_one_length_do_not_come_far():
    assert level("far away", SGD) == 6
    assert level("far away", ADAM) <= 3


def test_a_sum_that_only_grows_cannot_start_anew():
    assert level("new start", torch.optim.Adagrad) <= level("new start", SGD) - 2


def test_momentum_makes_a_game_go_round():
    assert level("game", SGD, momentum=0.8) <= level("game", SGD) - 2


def test_newtons_method_takes_valleys_in_no_time():
    solver = Solver(Maker("", torch.optim.LBFGS), KINDS[0], elements=True, parameters=True)
    assert passed(PROBLEMS["turned valley"], solver) == 6


def test_levels_grow_harder():
    """Gradient descent passes the first of each, and the last of not half of them."""
    levels = [level(name, SGD) for name in PROBLEMS]
    assert min(levels) >= 1
    assert sum(one == 6 for one in levels) < len(levels) / 2


def test_there_are_some_twenty_of_six_levels():
    assert 20 <= len(PROBLEMS) <= 24
    assert {len(problem.levels) for problem in PROBLEMS.values()} == {problems.LEVELS}


# ---------------------------------------------------------------- the script


@pytest.fixture
def few_problems(monkeypatch):
    few = {name: PROBLEMS[name] for name in ("valley", "noise")}
    monkeypatch.setattr(problems, "PROBLEMS", few)


MY_MOMENTUM = """
from optimizers import UpdateRule


class MyMomentum(UpdateRule):
    def __init__(self, params, lr=0.01, momentum=0.8):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    def update(self, param, grad, state, group):
        state["velocity"] = group["momentum"] * state.get("velocity", 0) + grad
        param -= group["lr"] * state["velocity"]
"""
WORDS = ["homework.MyMomentum", "--like", "SGD(lr=0.01, momentum=0.8)", "--no-show"]


def test_the_readmes_command(homework, few_problems, capsys):
    homework(MY_MOMENTUM)
    assert check_optimizer.main([*WORDS, "--csv", "it.csv"]) == 0
    out = capsys.readouterr().out
    assert "The same steps as SGD(lr=0.01, momentum=0.8), to nine digits" in out
    assert out.count("\n  ok ") == len(CHECKS)
    assert "All of this holds." in out
    assert re.search(r"^problem +homework.MyMomentum +SGD +Momentum +Adam$", out, re.MULTILINE)
    rows = Path("it.csv").read_text().splitlines()
    assert rows[0] == "problem,optimizer,levels"
    assert "valley,homework.MyMomentum,5" in rows
    assert len(rows) == 1 + 2 * 4
    assert Path("check_optimizer.png").stat().st_size > 1000


def test_what_is_wrong_is_said_in_english_and_chinese(homework, few_problems, capsys):
    homework(MY_MOMENTUM.replace("+ grad", "- grad"))
    assert check_optimizer.main(WORDS) == 1
    english = capsys.readouterr().out
    assert "Not the same steps as SGD" in english
    assert "WRONG  steps go downhill: The steps go uphill" in english
    assert check_optimizer.main([*WORDS, "--zh"]) == 1
    chinese = capsys.readouterr().out
    assert chinese.count("\n\n") == english.count("\n\n")
    assert chinese.count("h = ") == english.count("h = ")
    assert "  错误     步子是下坡的\uff1a" in chinese
    assert not re.search("WRONG|, line|: ", chinese.split("每个优化器")[1].split("h = ")[0])


@pytest.mark.parametrize(
    ("source", "where", "error"),
    [
        ("1 / 0\n" + MY_MOMENTUM, "homework.py, line 1", "ZeroDivisionError"),
        (MY_MOMENTUM.replace("class MyMomentum", "class"), "homework.py, line 5", "SyntaxError"),
        ("import sys\nsys.exit()\n", "it calls exit()", ""),
        ("import nowhere\n", "homework.py, line 1", "ModuleNotFoundError"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused(homework, workdir, capsys, source, where, error):
    homework(source)
    assert_refused(check_optimizer.main, WORDS, where, workdir, capsys)
    assert exit_status(check_optimizer.main, WORDS) == 2
    assert error in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "broken", "number"),
    [
        ("super().__init__(params", "raise KeyError('x'); super().__init__(params", 7),
        ("param -= group", "param -= group['rate'] + group", 11),
        ("param -= group", "exit(); param -= group", 11),
        ("param -= group", "raise GeneratorExit; param -= group", 11),
        ("param -= group", "assert state['step'] < 4; param -= group", 11),
        ("param -= group", "param += self.nothing; param -= group", 11),
        ("param -= group", "param.grad.sum().backward(); param -= group", 11),
    ],
)
def test_a_class_that_fails_is_told_its_line(homework, capsys, line, broken, number):
    homework(MY_MOMENTUM.replace(line, broken))
    assert check_optimizer.main(WORDS) == 1
    out, err = capsys.readouterr()
    assert f"It fails at homework.py, line {number}" in out
    assert "Traceback" not in out + err


def test_its_own_words_are_not_heard(homework, few_problems, capsys):
    homework(MY_MOMENTUM.replace("param -=", "print('noise'); param -="))
    assert check_optimizer.main(WORDS) == 0
    assert "noise\n" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: NAME"),
        (["homework.Nothing"], "homework has no 'Nothing'; known: "),
        (["homework"], "unknown optimizer 'homework'"),
        (["Adma"], "did you mean Adam"),
        (["Adam", "--like", "Adma"], "did you mean Adam"),
        (["homework.MyMomentum(momentun=1)"], "takes no 'momentun'; did you mean momentum?"),
        (["homework.MyMomentum", "--like", "SGD + StepLR(step_size=2)"], "has a schedule"),
        (["pytorch_optimizer.SAM"], "needs base_optimizer: write"),
        (["Adam", "--like", "pytorch_optimizer.TRAC"], "--like pytorch_optimizer.TRAC cannot step"),
    ],
)
def test_wrong_words_are_refused(homework, workdir, capsys, words, message):
    homework(MY_MOMENTUM.replace("MyMomentum", "MyMomentum2") + "\n\nMyMomentum = MyMomentum2\n")
    assert_refused(check_optimizer.main, words, message, workdir, capsys)


def test_the_figure_has_a_column_for_each():
    solved = {
        "valley": problems.Solved(PROBLEMS["valley"], {"homework.MyMomentum": 5, "SGD": None}),
        "noise": problems.Solved(PROBLEMS["noise"], {"homework.MyMomentum": 0, "SGD": 6}),
    }
    figure = check_optimizer.draw(solved)
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_xticklabels()] == ["homework.\nMyMomentum", "SGD"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["valley", "noise"]
    assert [t.get_text() for t in axes.texts] == ["5", "-", "0", "6"]
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in axes.get_xticklabels()]
    assert boxes[0].x1 < boxes[1].x0
    plt.close(figure)


def test_from_a_notebook():
    findings = check(Plain)
    assert findings.sentences() == []
    assert len(findings.results) == len(CHECKS)
    assert findings.comparison is None


def test_the_checks_are_cases_for_another_suite():
    test = cases(NegativeRates, like="SGD")
    (mark,) = test.pytestmark
    names = list(mark.args[1])
    assert names == ["the same steps as SGD", *(one.words for one in CHECKS)]
    test("gradients are not changed")
    with pytest.raises(AssertionError, match="It takes lr=-1 without an error"):
        test("a negative lr is refused")
    with pytest.raises(AssertionError, match="Step 2 is the first to differ"):
        test("the same steps as SGD")


def test_it_needs_no_pytest():
    code = "import sys; sys.modules['pytest'] = None; import check_optimizer"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# ---------------------------------------------------------------- in Chinese


def sentences():
    """Return all that may be said."""
    said = {*finding.CURES.values(), check_optimizer.OK, check_optimizer.WRONG}
    for module in (check_optimizer, contract, finding, mistakes, same_steps):
        said |= {
            value
            for name, value in vars(module).items()
            if name.isupper() and isinstance(value, str) and " " in value and "\n" not in value
        }
    for one in CHECKS:
        said |= {one.words, one.doing, one.cure} - {""}
    said |= {entry.sentence for entry in known.KNOWN}
    said |= {problem.words for problem in PROBLEMS.values()}
    said |= {walk.words for walk in same_steps.walks_for({"momentum": 0.9, "eps": 1e-8})}
    return said


def test_each_sentence_has_its_chinese():
    path = ROOT / "checks" / "chinese.json"
    chinese = json.loads(path.read_text(encoding="utf-8"))
    assert chinese.keys() == sentences()
    for english, other in chinese.items():
        fields = [sorted(set(re.findall(r"{.*?}", text))) for text in (english, other)]
        assert fields[0] == fields[1], english


def test_run_check_says_what_was_done_when_it_failed():
    def one(self, p, grad, group):
        p -= group["lr"] * (grad + 0 * grad.max())

    (words,) = wrong_of(Maker("", plain_with(one)))
    check_of_it = next(one for one in CHECKS if one.words == words)
    said = str(run_check(check_of_it, subject_of(Maker("", plain_with(one)))).finding)
    assert "with a parameter without elements: RuntimeError" in said
