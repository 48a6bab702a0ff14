"""The language of spaces, what is drawn from them, and stacks whose nets have settings."""

import math
import pickle
import re
from dataclasses import replace

from lab.command_line.spaces import parse_space, parse_spaces
from lab.command_line.specs import parse_optimizer
from lab.training.crew import Crew, Order
from lab.training.keep import Keep
from lab.training.pieces import run_piece
from lab.training.runs import Training
from lab.training.stack import shadowed
from lab.training.train import IN_TURN, train_all
from lab.training.trials import check_trials, limits_of, try_trials

import pytest
import torch
from conftest import SMALL, assert_like_alone, small_trainings
from scipy import stats
from torch.nn.functional import mse_loss
from torch.optim import Optimizer

import optimizers
from spaces import SPACES, YOUNG
from tasks import TASKS

QUICK = replace(SMALL, epochs=2)


def drawn(text, n=256, seed=0, epochs=1):
    return parse_space(text).draw(n, seed, epochs)


# ---------------------------------------------------------------- the language


def test_a_value_may_be_a_range():
    trials = drawn("Adam(lr=log(1e-4, 1), betas=(1 - log(1e-3, 1), 0.99), eps=even(1, 3))")
    logs = [math.log10(trial.lr) for trial in trials]
    assert stats.kstest(logs, stats.uniform(-4, 4).cdf).pvalue > 0.9  # more even than chance
    first = [math.log10(1 - trial.settings["betas"][0]) for trial in trials]
    assert stats.kstest(first, stats.uniform(-3, 3).cdf).pvalue > 0.9
    assert {trial.settings["betas"][1] for trial in trials} == {0.99}
    eps = [trial.settings["eps"] for trial in trials]
    assert stats.kstest(eps, stats.uniform(1, 2).cdf).pvalue > 0.9
    assert abs(stats.spearmanr(logs, eps).statistic) < 0.05


def test_or_is_one_of_these_each_as_likely():
    trials = drawn(
        "SGD(lr=0.1, momentum=0.5, nesterov=True or False, weight_decay=0 or log(1, 10))"
    )
    assert sum(trial.settings["nesterov"] for trial in trials) == 128
    decays = [trial.settings["weight_decay"] for trial in trials]
    assert decays.count(0) == 128
    others = [math.log10(decay) for decay in decays if decay]
    assert stats.kstest(others, stats.uniform(0, 1).cdf).pvalue > 0.9


def test_numbers_have_three_digits_and_a_trial_is_written_as_one_could_type_it():
    for trial in drawn("AdamW", n=8):
        spec = parse_optimizer(trial.written)
        assert spec.call == trial.written
        assert float(f"{trial.lr:.3g}") == trial.lr
        assert {"lr": trial.lr} | trial.settings == spec.keywords


def test_a_schedule_may_be_one_of_several_and_knows_the_epochs():
    trials = drawn("SGD(lr=log(0.1, 1)) + (none or cosine or warm_up)", n=64, epochs=7)
    calls = [trial.written.partition(" + ")[2] for trial in trials]
    cosine = "CosineAnnealingLR(T_max=7)"
    warm_up = f"LinearLR(start_factor=0.1, total_iters=2) + {cosine}"
    assert set(calls) == {"", cosine, warm_up}
    assert all(19 <= calls.count(call) <= 24 for call in set(calls))
    one = parse_space("SGD(lr=log(0.1, 1)) + StepLR(step_size=2)")
    assert "schedule" not in one.ranges
    assert one.draw(2, 0, 1)[0].written.endswith(" + StepLR(step_size=2)")


def test_a_space_of_one_point_is_tried_once():
    (trial,) = drawn("SGD(lr=0.1)")
    assert (trial.lr, trial.settings, trial.place) == (0.1, {}, ())


def test_a_name_is_a_space_of_the_file_or_its_rate_is_tuned():
    assert list(parse_space("Adam").ranges) == ["lr", "betas[0]", "betas[1]", "eps"]
    assert list(parse_space("mine=Adam").ranges) == ["lr", "betas[0]", "betas[1]", "eps"]
    assert list(parse_space("Adamax").ranges) == ["lr"]
    assert list(parse_space("optimizers.Adam").ranges) == ["lr"]
    assert list(parse_spaces(SPACES)) == list(SPACES)


def test_the_seed_draws():
    lrs = [[trial.lr for trial in drawn("SGD", n=4, seed=seed)] for seed in (1, 1, 2)]
    assert lrs[0] == lrs[1] != lrs[2]


def test_untuned_is_what_the_library_has():
    space = parse_space("Adam")
    *rates, default = space.untuned(4, 3, 1)
    assert [trial.name for trial in rates] == ["rate 1", "rate 2", "rate 3", "rate 4"]
    assert [trial.lr for trial in rates] == [trial.lr for trial in space.draw(4, 3, 1)]
    for trial in (*rates, default):
        assert trial.settings == {"betas": (0.9, 0.999), "eps": 1e-8}
    assert (default.name, default.lr) == ("default", 1e-3)
    assert parse_space("Momentum").untuned(1, 0, 1)[0].settings == {"momentum": 0.9}
    # Without momentum there is no nesterov: that cannot be, and is left out.
    assert (
        parse_space("SGD(lr=log(1, 2), nesterov=True, momentum=log(0.1, 0.9))").untuned(1, 0, 1)
        == []
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Adam(lr=log(1, 0.1))", "log(1, 0.1): it wants two numbers, LOW below HIGH, above 0"),
        ("Adam(lr=log(0, 0.1))", "above 0"),
        ("Adam(lr=even(1, 1))", "LOW below HIGH"),
        ("Adam(lr=log(1, 'a'))", "two numbers"),
        ("Adam(lr=log(0.1))", "log(0.1) is neither a literal nor log(LOW, HIGH)"),
        ("Adam(lr=lag(0.1, 1))", "lag(0.1, 1) is neither"),
        ("Adam(lr=1 - 0.1)", "1 - 0.1 is neither"),
        ("Adam(lr=2 - log(0.1, 1))", "2 - log(0.1, 1) is neither"),
        ("Adam(lr=__import__('os').getcwd())", "is neither"),
        ("Adam(lrr=log(0.1, 1))", "Adam has no 'lrr'; did you mean lr?"),
        ("Adom", "unknown optimizer 'Adom'; did you mean"),
        ("Adam(lr=log(0.1, 1)) + (none or cosin)", "unknown schedule 'cosin'"),
        ("Adam(log(0.1, 1))", "every value needs its keyword"),
    ],
)
def test_what_is_no_space_is_refused_in_a_line(text, says):
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        parse_space(text)
    assert "\n" not in str(error.value)


def test_two_of_one_label_are_refused():
    with pytest.raises(ValueError, match="two optimizers are labelled 'SGD'"):
        parse_spaces(["SGD", "SGD=Adam"])


def test_the_ends_of_a_range():
    ranges = parse_space(
        "SGD(lr=log(0.1, 1), momentum=1 - log(0.01, 1), dampening=1 - log(0.1, 0.5), "
        "weight_decay=0 or log(1, 2), nesterov=False or True)"
    ).ranges
    ends = {name: one.ends() for name, one in ranges.items()}
    assert ends == {
        "lr": (0.1, 1),
        "momentum": (0.99, None),  # nothing is beyond 0
        "dampening": (0.9, 0.5),
        "weight_decay": (None, 2),
        "nesterov": (None, None),
    }


# ---------------------------------------------------------------- stacks with settings


def with_settings(*settings, lrs=(0.01, 0.1, 0.05)):
    """Return trainings of four seeds with each of these settings."""
    return [
        replace(training, lr=lr, settings=own)
        for own, lr in zip(settings, lrs, strict=True)
        for training in small_trainings()
    ]


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        ("SGD()", [{"momentum": m, "weight_decay": d} for m, d in ((0, 0), (0.9, 0), (0.5, 0.1))]),
        ("SGD()", [{"momentum": 0.9, "nesterov": n} for n in (False, True, False)]),
        ("Adam()", [{"betas": b, "eps": e} for b, e in
                    (((0.9, 0.99), 1e-8), ((0.0, 0.5), 1e-3), ((0.5, 0.9), 1e-8))]),
        ("AdamW(betas=(0.5, 0.9))", [{"weight_decay": d, "amsgrad": a} for d, a in
                    ((0, False), (1, True), (0.1, False))]),
        ("RMSprop()", [{"alpha": a, "momentum": m, "centered": c} for a, m, c in
                       ((0.9, 0, False), (0.5, 0.5, True), (0.99, 0, False))]),
        ("optimizers.NAdam()", [{"betas": (b, 0.99)} for b in (0.9, 0.5, 0.1)]),
    ],
)  # fmt: skip
def test_each_net_of_a_stack_has_its_own_settings(spec, settings):
    make_optimizer = parse_optimizer(spec)
    trainings = with_settings(*settings)
    runs = train_all(QUICK, trainings, make_optimizer)
    assert runs.stacked
    assert runs.remarks == []
    assert_like_alone(runs, QUICK, trainings, make_optimizer)


class Own(Optimizer):
    """Reads one hyperparameter from itself and not from its groups."""

    def __init__(self, params, lr=0.1, decay=0.0):
        super().__init__(params, {"lr": lr, "decay": decay})
        self.decay = decay

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                param -= group["lr"] * (param.grad + self.decay * param)
        return loss


@pytest.mark.parametrize("decays", [(0.0, 0.0, 0.5), (0.0, 0.5, 0.0), (0.5, 0.0, 0.0)])
def test_a_setting_that_is_not_read_from_the_groups_shows(decays):
    trainings = with_settings(*({"decay": decay} for decay in decays), lrs=(0.1, 0.1, 0.1))
    runs = train_all(QUICK, trainings, Own)
    assert [remark.startswith(IN_TURN) for remark in runs.remarks] == [True]
    assert_like_alone(runs, QUICK, trainings, Own)


def test_so_does_adagrads_first_accumulator():
    settings = [{"initial_accumulator_value": value} for value in (0.0, 0.1, 1.0)]
    trainings, make_optimizer = with_settings(*settings), parse_optimizer("Adagrad()")
    runs = train_all(QUICK, trainings, make_optimizer)
    assert runs.stacked
    assert_like_alone(runs, QUICK, trainings, make_optimizer)


def test_trainings_that_set_different_names_are_no_stack():
    trainings = with_settings({"momentum": 0.9}, {}, {})
    runs = train_all(QUICK, trainings, parse_optimizer("SGD(momentum=0.5)"))
    assert not runs.stacked
    assert "not all of them set the same hyperparameters" in runs.remarks[0]


def test_those_in_the_shadow_have_the_middle_rate_and_the_most_of_everything():
    def training(lr, **settings):
        return Training(0, None, None, lr, settings)

    assert shadowed([training(lr) for lr in (1, 2, 3, 4)]) == [2, 3]
    assert shadowed([training(lr) for lr in (4, 1, 3, 2)]) == [2, 0]
    some = [
        training(1, a=0, b=(0.1, 2)),
        training(1, a=0, b=(0.3, 1)),
        training(1, a=0, b=(0.2, 3)),
    ]
    assert shadowed(some) == [1, 2]
    assert shadowed([*some, training(1, a=-1, b=(0.1, 2)), training(0, a=0, b=(0.1, 2))]) == [
        *(1, 3),  # 0, 1, 2 and 3 share the highest rate; 3 is the only one with another a
    ]


# ---------------------------------------------------------------- trials


def small(n=3):
    return small_trainings()[:n]


def trials_of(text, n, seed=0):
    space = parse_space(text)
    return [*space.draw(n, seed, QUICK.epochs), *space.untuned(2, seed, QUICK.epochs)]


def test_the_losses_of_trials_are_those_of_each_alone_whatever_its_schedule():
    trials = trials_of("SGD(lr=log(0.01, 1), momentum=0 or 0.9) + (none or cosine)", 8)
    trainings = [trial.training(start) for trial in trials for start in small()]
    result = try_trials(QUICK, trainings, trials)
    assert result.seeds == [start.seed for start in small()]
    assert result.numbers() == [*range(8)]
    assert (result.numbers("rate"), result.numbers("default")) == ([8, 9], [10])
    assert not result.remarks
    for k, trial in enumerate(trials):
        spec = parse_optimizer(trial.written)
        for s, start in enumerate(small()):
            alone = train_all(QUICK, [start], spec)
            assert result.held_out_losses[k, s].item() == pytest.approx(
                alone.held_out_losses.item(), rel=1e-3
            )
            assert result.final_losses[k, s].item() == pytest.approx(
                alone.final_losses.item(), rel=1e-3
            )


def test_what_ends_above_a_guess_or_diverges_counts_as_the_guess():
    limits = limits_of(QUICK, small())
    for start, limit in zip(small(), limits.tolist(), strict=True):
        mean = start.dataset.tensors[1].mean()
        y = start.held_out.tensors[1]
        assert limit == pytest.approx(mse_loss(mean.expand_as(y), y).item(), rel=1e-3)
    trials = trials_of("SGD(lr=1000 or 0.05)", 2)
    trainings = [trial.training(start) for trial in trials for start in small()]
    result = replace(try_trials(QUICK, trainings, trials), limits=limits)
    for losses, own in zip(result.losses(), result.held_out_losses[:2], strict=True):
        assert losses.tolist() == own.minimum(limits).tolist()
    (bad,) = [k for k in range(2) if trials[k].lr == 1000]
    assert result.losses()[bad].tolist() == limits.tolist()
    assert "diverged" in result.note


def test_a_task_without_a_guess_is_limited_by_its_first_weights():
    def loss(outputs, y):
        if outputs.stride()[0] == 0:
            raise ValueError("one output for all will not do")
        return mse_loss(outputs, y)

    task = replace(QUICK, loss=loss)
    (start,) = small(1)
    x, y = start.held_out.tensors
    assert limits_of(task, [start]).item() == pytest.approx(
        mse_loss(start.make_net(task)(x), y).item(), rel=1e-5
    )


def test_settings_that_cannot_be_are_refused_by_name():
    trials = trials_of("SGD(lr=0.1, momentum=0.5 or -1)", 2)
    with pytest.raises(ValueError, match=r"SGD\(lr=0.1, momentum=-1\) cannot be \(ValueError: Inv"):
        check_trials(QUICK, small(1)[0], trials)


def test_a_schedule_that_is_too_short_is_refused_before_any_work():
    trials = trials_of("SGD(lr=log(0.1, 1)) + (none or OneCycleLR(total_steps=2))", 8)
    with pytest.raises(ValueError, match="Tried to step 3 times"):
        check_trials(QUICK, small(1)[0], trials)


def test_each_of_ours_that_torch_has_not_has_a_space():
    ours = [f"optimizers.{name}" for name in optimizers.__all__ if not hasattr(torch.optim, name)]
    assert {*YOUNG} == {*ours, "Muon | AdamW"} - {"optimizers.UpdateRule"}
    assert [*parse_spaces(["SGD", "today"])] == ["SGD", "Adam", *YOUNG]


@pytest.mark.parametrize("name", [*SPACES, *YOUNG])
def test_each_space_of_the_file_has_settings_that_can_be(name):
    space = parse_space(name)
    check_trials(QUICK, small(1)[0], space.draw(64, 1, 1))
    assert len(space.untuned(3, 1, 1)) == 4


def test_another_process_is_told_the_settings():
    trainings = with_settings({"momentum": 0.9}, {"momentum": 0}, {"momentum": 0.5})
    task = replace(TASKS["logistic"], epochs=1)
    own = [replace(t, **dict(zip(("dataset", "held_out"), task.make_data(t.seed), strict=True)))
           for t in trainings]  # fmt: skip
    spec = parse_optimizer("SGD()")
    piece = Order(task, spec, every_epoch=False, at_once=True, is_shared=True).piece(own)
    (record,) = pickle.loads(run_piece(pickle.loads(pickle.dumps(piece))))
    assert torch.equal(record["held_out_losses"], train_all(task, own, spec).held_out_losses)


def test_settings_are_in_the_name_of_what_is_kept(tmp_path):
    crew = Crew(keep=Keep(tmp_path))
    spec = parse_optimizer("SGD()")
    first = train_all(
        QUICK, with_settings({"momentum": 0.9}, {"momentum": 0}, {"momentum": 0.5}), spec, crew=crew
    )
    assert (crew.keep.added, crew.keep.taken) == (1, 0)
    again = train_all(
        QUICK, with_settings({"momentum": 0.9}, {"momentum": 0}, {"momentum": 0.5}), spec, crew=crew
    )
    assert torch.equal(first.held_out_losses, again.held_out_losses)
    assert (crew.keep.added, crew.keep.taken) == (1, 1)
    train_all(
        QUICK, with_settings({"momentum": 0.9}, {"momentum": 0}, {"momentum": 0.4}), spec, crew=crew
    )
    assert (crew.keep.added, crew.keep.taken) == (2, 1)
