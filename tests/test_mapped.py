"""Rules mapped over the nets of a stack: each net trains as alone, whatever the rule does."""

from dataclasses import replace

from lab.command_line.specs import parse_optimizer
from lab.outcome import no_progress
from lab.training import mapped
from lab.training.mapped import ways
from lab.training.proof import Unlike
from lab.training.runs import trainings_of
from lab.training.stack import train_stack
from lab.training.train import IN_TURN, train_all, train_in_turn

import pytest
import torch
from conftest import SMALL, assert_like_alone, small_trainings

import optimizers
from benchmarks import steps
from optimizers.update_rule import UpdateRule
from settings import TODAY
from tasks import TASKS

QUICK = replace(SMALL, epochs=2)
APART = ["UpdateRule", "SparseAdam", "LBFGS", "Muon"]  # they do not take all parameters of a net
OURS = [f"optimizers.{name}" for name in optimizers.__all__ if name not in APART]
RULES = [*OURS, "Adafactor", "Muon | AdamW", "optimizers.Muon | optimizers.SGD(momentum=0.9)"]
ROUGH = "SOAP", "Muon | AdamW"  # whose rounding errors grow
RATES = tuple(10 ** (-4 + k / 3) for k in range(9))


def mapped_runs(task, trainings, make_optimizer, **how):
    """Return the runs of a stack whose rule is mapped, though it may not need to be."""
    return train_stack(task, trainings, make_optimizer, no_progress, is_mapped=True, **how)


@pytest.mark.parametrize("name", RULES)
def test_nine_rates_from_ten_seeds_train_as_each_alone(name):
    make_optimizer = parse_optimizer(name)
    trainings = small_trainings(RATES, range(10))
    runs = mapped_runs(QUICK, trainings, make_optimizer)
    assert runs.losses.shape == (8, 90)
    close = {"rtol": 0.02, "atol": 1e-4} if name.endswith(ROUGH) else {"rtol": 2e-4, "atol": 2e-6}
    for k in (0, 26, 52, 89):
        alone = train_in_turn(QUICK, [trainings[k]], make_optimizer, no_progress)
        torch.testing.assert_close(runs.held_out_losses[k], alone.held_out_losses[0], **close)


@pytest.mark.parametrize("name", ["Adafactor", "optimizers.SOAP", "Muon | AdamW"])
def test_what_sees_a_matrix_trains_in_a_stack_of_itself(name):
    make_optimizer, trainings = parse_optimizer(name), small_trainings((0.01, 0.03), range(3))
    runs = train_all(QUICK, trainings, make_optimizer)
    assert runs.stacked
    where = ["Muon moves layers.0.weight; AdamW moves the rest"]
    assert runs.remarks == (where if "|" in name else [])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, [True]) for name in ("Adafactor", "optimizers.SOAP", "Muon | AdamW")),
        *((name, [False, True]) for name in ("optimizers.Lion", "SGD", "AdamW(lr=0.5)", "Muon")),
        ("LBFGS", [False]),
    ],
)
def test_elements_of_a_stack_are_one_parameter_where_the_rule_sees_each_alone(name, expected):
    """SOAP would take the eigenvectors of a matrix of all parameters of a net."""
    assert ways(parse_optimizer(name)) == expected


def test_finding_the_way_draws_no_random_numbers():
    class Noisy(UpdateRule):
        def __init__(self, params, lr=0.1):
            super().__init__(params, {"lr": lr})

        def update(self, param, grad, state, group):
            param -= group["lr"] * (grad + torch.randn(grad.shape))

    before = torch.get_rng_state()
    ways(Noisy)
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------- rules as students write them


class Clipped(UpdateRule):
    """Descent by gradients whose norm is at most 0.1, each parameter for itself."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    def update(self, param, grad, state, group):
        param -= group["lr"] * grad * (0.1 / grad.norm()).clamp(max=1)


class Lars(UpdateRule):
    """Steps as long as a share of the parameter itself: You et al., arXiv:1708.03888, 2017."""

    def __init__(self, params, lr=0.1, momentum=0.9):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    def update(self, param, grad, state, group):
        ratio = param.norm() / grad.norm()
        state["v"] = group["momentum"] * state.get("v", 0) + group["lr"] * ratio * grad
        param -= state["v"]


class ClippedTogether(UpdateRule):
    """Descent by gradients whose norm is at most 0.1, over all parameters."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    def step_group(self, params, grads, states, group):
        norm = torch.cat([grad.flatten() for grad in grads]).norm()
        for param, grad in zip(params, grads, strict=True):
            param -= group["lr"] * grad * (0.1 / norm).clamp(max=1)


class Prepared(Lars):
    """With state from its constructor, changed in place, and groups of its own."""

    def __init__(self, params, lr=0.1):
        params = list(params)
        super().__init__([{"params": params[:2]}, {"params": params[2:], "momentum": 0.0}], lr)
        for group in self.param_groups:
            for param in group["params"]:
                self.state[param]["v"] = torch.ones_like(param)

    def update(self, param, grad, state, group):
        state["v"].mul_(group["momentum"]).add_(grad)
        param -= group["lr"] * state["v"] / state["v"].norm()


@pytest.mark.parametrize("rule", [Clipped, Lars, ClippedTogether, Prepared])
def test_a_rule_with_a_norm_in_it_stacks_by_itself(rule):
    trainings = small_trainings((0.003, 0.03), range(3))
    runs = train_all(QUICK, trainings, rule)
    assert runs.stacked
    assert runs.remarks == []
    assert_like_alone(runs, QUICK, trainings, rule)


class Branching(Clipped):
    def update(self, param, grad, state, group):
        if grad.norm() > 0.1:  # a question that has another answer for each net
            grad = 0.1 * grad / grad.norm()
        param -= group["lr"] * grad


class OwnStep(Clipped):
    def step(self, closure=None):
        return super().step(closure)


@pytest.mark.parametrize(
    ("rule", "reason"), [(Branching, "data-dependent"), (OwnStep, "its weights differ")]
)
def test_what_cannot_be_mapped_trains_in_turn_and_says_why(rule, reason):
    trainings = small_trainings((0.03, 0.1), range(2))
    runs = train_all(QUICK, trainings, rule)
    assert not runs.stacked
    (remark,) = runs.remarks
    assert remark.startswith(IN_TURN)
    assert reason in remark
    assert_like_alone(runs, QUICK, trainings, rule)


# ---------------------------------------------------------------- settings, schedules, modes


def test_nets_with_other_settings_step_by_these():
    settings = [{"betas": (0.9, 0.99)}, {"betas": (0.5, 0.9)}, {"betas": (0.9, 0.99)}]
    data = small_trainings()
    trainings = [
        replace(one, lr=lr, settings=own)
        for own, lr in zip(settings, (0.01, 0.03, 0.02), strict=True)
        for one in data
    ]
    make_optimizer = parse_optimizer("optimizers.NAdam()")  # whose mu_product goes by the betas
    assert_like_alone(
        mapped_runs(QUICK, trainings, make_optimizer), QUICK, trainings, make_optimizer
    )


def test_nets_that_differ_in_their_rates_alone_step_at_once(monkeypatch):
    steps = []
    of_each = mapped.step_of_each
    monkeypatch.setattr(mapped, "step_of_each", lambda *args: steps.append(1) or of_each(*args))
    mapped_runs(QUICK, small_trainings(RATES), parse_optimizer("optimizers.Adam()"))
    assert len(steps) == 8


@pytest.mark.parametrize(
    "schedule",
    ["StepLR(step_size=1, gamma=0.3)", "ReduceLROnPlateau(patience=0, factor=0.3, threshold=0.1)"],
)
def test_schedules_move_the_rates(schedule):
    task, spec = replace(SMALL, epochs=3), parse_optimizer(f"optimizers.Adafactor() + {schedule}")
    trainings = small_trainings((0.01, 0.1))
    runs = train_all(task, trainings, spec)
    assert runs.stacked
    assert_like_alone(runs, task, trainings, spec)
    alone = train_in_turn(task, trainings, spec, no_progress)
    torch.testing.assert_close(runs.lr_histories, alone.lr_histories)
    assert runs.lr_histories.unique().numel() > 2


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "SGDScheduleFree", "ASGD"])
def test_what_is_judged_elsewhere_is_so_in_a_stack(name):
    spec, trainings = parse_optimizer(f"optimizers.{name}"), small_trainings((0.01, 0.1))
    runs = mapped_runs(QUICK, trainings, spec, every_epoch=True)
    alone = train_in_turn(QUICK, trainings, spec, no_progress, every_epoch=True)
    torch.testing.assert_close(runs.epochs.held_out, alone.epochs.held_out, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(runs.final_losses, alone.final_losses, rtol=1e-3, atol=1e-6)


# ---------------------------------------------------------------- the proof


@pytest.mark.parametrize("error", [1.001, 0.5, -1.0])
def test_a_formula_that_is_not_torchs_is_found_out(error, monkeypatch):
    """The shadow steps by torch's own Adafactor, the stack by ours."""
    right = optimizers.Adafactor.update

    def wrong(self, param, grad, state, group):
        before = param.clone()
        right(self, param, grad, state, group)
        param.copy_(before + error * (param - before))

    monkeypatch.setattr(optimizers.Adafactor, "update", wrong)
    with pytest.raises(Unlike, match="its weights differ"):
        mapped_runs(QUICK, small_trainings((0.01, 0.1)), parse_optimizer("Adafactor"))


@pytest.mark.parametrize(("error", "is_found"), [(1.003, False), (1.05, True), (-1, True)])
def test_muons_matrices_may_differ_as_bfloat16_does(error, is_found, monkeypatch):
    right = optimizers.matrices.orthogonalize
    monkeypatch.setattr(optimizers.matrices, "orthogonalize", lambda *args: error * right(*args))
    runs = train_all(QUICK, small_trainings((0.01, 0.1)), parse_optimizer("Muon | AdamW"))
    assert runs.stacked != is_found


def test_beside_muon_all_else_is_held_to_rounding(monkeypatch):
    right = optimizers.AdamW.update

    def wrong(self, param, grad, state, group):
        right(self, param, grad, state, group)
        param -= 1e-3 * group["lr"] * grad.sign()

    monkeypatch.setattr(optimizers.AdamW, "update", wrong)
    runs = train_all(QUICK, small_trainings((0.01, 0.1)), parse_optimizer("Muon | AdamW"))
    assert not runs.stacked


def test_weights_that_are_moved_roughly_go_on_from_the_stacks(monkeypatch):
    """So errors of a step do not add up: each epoch may differ by as much."""
    right, calls = optimizers.matrices.orthogonalize, []

    def shifted(*args):
        calls.append(1)
        return right(*args) * 1.02

    monkeypatch.setattr(optimizers.matrices, "orthogonalize", shifted)
    task = replace(SMALL, epochs=12)
    assert train_all(task, small_trainings((0.01, 0.1)), parse_optimizer("Muon | AdamW")).stacked
    assert len(calls) == 12 * 4


# ---------------------------------------------------------------- what docs/today.md says


@pytest.mark.slow
def test_on_spirals_soap_and_schedule_free_end_far_below_adam():
    task, medians = TASKS["spirals"], {}
    for name, lr in {"Adam": 0.1, "SOAP": 0.0316, "ScheduleFree": 0.1}.items():
        trainings = trainings_of(task, range(12), [lr])
        runs = train_all(task, trainings, parse_optimizer(TODAY[name]))
        medians[name] = runs.held_out_losses.median().item()
    assert medians["SOAP"] < medians["Adam"] / 3
    assert medians["ScheduleFree"] < medians["Adam"] / 3


@pytest.mark.slow
def test_what_each_of_today_remembers(capsys):
    steps.main()
    lines = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    state = {name: float(words.split()[-3]) for name, words in lines.items()}
    assert [*state] == [*TODAY]
    assert (state["Adam"], state["Lion"], state["AdEMAMix"], state["Prodigy"]) == (2, 1, 3, 4)
    assert state["SOAP"] > 8
