"""Two optimizers as one: which parameters go where, and that nobody outside sees a difference."""

import copy
import pickle
from dataclasses import replace
from functools import partial

from lab.command_line.spaces import parse_space
from lab.command_line.specs import TORCH_CLASSES, parse_optimizer, parse_optimizers
from lab.outcome import no_progress
from lab.training.adapt import make_for
from lab.training.keep import name_of_code
from lab.training.parts import Parts, hidden_matrices, rules_of
from lab.training.train import train_all, train_in_turn

import pytest
import torch
from conftest import SMALL, SmallNet, small_trainings, textbook_training
from torch import nn
from torch.optim.lr_scheduler import StepLR

import compare_budgets
import compare_learning_rates
import compare_optimizers
import compare_paths
import compare_tasks
import optimizers
from models import BagOfWords, NextLetter, mlp
from settings import TODAY

QUICK = replace(SMALL, epochs=1)
PAIR = "Muon(lr=0.02) | AdamW(lr=0.003)"

# ---------------------------------------------------------------- what goes where


class Tied(nn.Module):
    """A language model whose head is its embedding, as in GPT-2."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight


def convolutions():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 6), nn.Linear(6, 2))


@pytest.mark.parametrize(
    ("make_net", "hidden"),
    [
        (SmallNet, ["layers.0.weight"]),
        (lambda: mlp(2, 4, 4, 3), ["0.weight", "2.weight"]),
        (lambda: NextLetter(5, 3, 2, 4), ["hidden.weight"]),
        (Tied, ["attention.in_proj_weight", "attention.out_proj.weight"]),
        (convolutions, ["2.weight"]),
        (lambda: nn.LSTM(2, 3, proj_size=1), ["weight_ih_l0", "weight_hh_l0"]),
        (lambda: nn.Linear(3, 2), []),
        (lambda: BagOfWords(5), []),
    ],
)
def test_hidden_matrices_are_neither_embeddings_nor_the_head(make_net, hidden):
    net = make_net()
    names = [name for name, _ in net.named_parameters()]
    assert [names[k] for k in hidden_matrices(net)] == hidden


def test_what_is_frozen_is_moved_by_neither():
    net = mlp(2, 4, 4, 3)
    net[0].weight.requires_grad_(False)
    assert "Muon moves 2.weight; AdamW" in parse_optimizer(PAIR).where(net)
    net[2].weight.requires_grad_(False)
    with pytest.raises(ValueError, match="no weight matrix of a hidden layer"):
        make_for(parse_optimizer(PAIR), net)


# ---------------------------------------------------------------- one optimizer to the outside


def pair_of(net):
    hidden = [p for k, p in enumerate(net.parameters()) if k in hidden_matrices(net)]
    rest = [p for k, p in enumerate(net.parameters()) if k not in hidden_matrices(net)]
    return torch.optim.Muon(hidden, lr=0.02), torch.optim.AdamW(rest, lr=0.003)


def steps(net, optimizers, n_steps, start=0, schedulers=()):
    """Train as a textbook does, with one optimizer or two."""
    for step in range(start, start + n_steps):
        x = torch.randn(8, 1, generator=torch.Generator().manual_seed(step))
        for optimizer in optimizers:
            optimizer.zero_grad()
        (net(x) - x.sin()).square().mean().backward()
        for each in (*optimizers, *schedulers):
            each.step()
    return torch.cat([param.detach().flatten() for param in net.parameters()])


def net_of(seed=0):
    torch.manual_seed(seed)
    return SmallNet()


def test_it_steps_as_two_optimizers_do():
    one, two = net_of(), net_of()
    pair = pair_of(two)
    assert torch.equal(steps(one, [make_for(parse_optimizer(PAIR), one)], 9), steps(two, pair, 9))


def test_a_scheduler_moves_both_as_two_would():
    one, two = net_of(), net_of()
    parts, pair = Parts(*pair_of(one)), pair_of(two)
    ends = steps(one, [parts], 9, schedulers=[StepLR(parts, 3, 0.5)])
    schedulers = [StepLR(each, 3, 0.5) for each in pair]
    assert torch.equal(ends, steps(two, pair, 9, schedulers=schedulers))
    assert [group["lr"] for group in parts.param_groups] == [0.02 / 8, 0.003 / 8]


def test_it_runs_the_closure_once_and_returns_its_loss():
    net, calls = net_of(), []

    def closure():
        calls.append(torch.is_grad_enabled())
        loss = net(torch.ones(1, 1)).square().sum()
        loss.backward()
        return loss

    before = steps(net, [], 0)
    loss = Parts(*pair_of(net)).step(closure)
    assert calls == [True]
    assert loss.requires_grad
    assert not torch.isclose(before, steps(net, [], 0)).any()


@pytest.mark.parametrize("how", [copy.deepcopy, lambda parts: pickle.loads(pickle.dumps(parts))])
def test_its_copy_goes_on_alike(how):
    net = net_of()
    parts = Parts(*pair_of(net))
    steps(net, [parts], 3)
    other_net, other = how((net, parts))
    assert torch.equal(steps(net, [parts], 4, 3), steps(other_net, [other], 4, 3))


def test_its_state_is_saved_and_loaded():
    net = net_of()
    parts = Parts(*pair_of(net))
    steps(net, [parts], 3)
    again = net_of(seed=1)
    again.load_state_dict(net.state_dict())
    loaded = Parts(*pair_of(again))
    loaded.load_state_dict(copy.deepcopy(parts.state_dict()))
    assert len(parts.state_dict()["state"]) == 4
    assert torch.equal(steps(net, [parts], 4, 3), steps(again, [loaded], 4, 3))


def test_a_group_that_is_added_goes_to_the_second():
    net, added = net_of(), nn.Parameter(torch.ones(2))
    parts = Parts(*pair_of(net))
    parts.add_param_group({"params": [added], "lr": 0.5})
    added.grad = torch.ones(2)
    parts.step()
    torch.testing.assert_close(added.detach(), torch.full((2,), 1 - 0.5 * (1 + 0.01)))
    assert [len(part.param_groups) for part in parts.parts] == [1, 2]
    with pytest.raises(ValueError, match="more than one"):
        parts.add_param_group({"params": [*net.parameters()][:1]})


def test_schedule_free_beside_muon_is_judged_at_its_average():
    net = net_of()
    muon, adamw = pair_of(net)
    averaging = optimizers.AdamWScheduleFree(adamw.param_groups[0]["params"], lr=0.1)
    parts = Parts(muon, averaging)
    before = steps(net, [parts], 5)
    parts.eval()
    judged = steps(net, [], 0)
    assert torch.equal(judged[:6], before[:6])  # Muon's
    assert not torch.isclose(judged[6:], before[6:], rtol=1e-6).all()
    parts.train()
    torch.testing.assert_close(steps(net, [], 0), before)


def test_the_rules_of_both_are_known():
    net = net_of()
    rules = rules_of(Parts(*pair_of(net)))
    assert [type(rule) for rule in rules] == [optimizers.Muon, optimizers.AdamW]
    first, _ = pair_of(net)
    assert rules_of(Parts(first, torch.optim.LBFGS([net.layers[2].bias]))) == []


@pytest.mark.parametrize("name", [*TORCH_CLASSES])
def test_each_class_of_torch_has_its_rule_but_lbfgs(name):
    make = TORCH_CLASSES[name]
    rules = rules_of(make([nn.Parameter(torch.ones(2, 2))], lr=0.5))
    assert [type(rule).__name__ for rule in rules] == ([] if name == "LBFGS" else [name])
    assert all(rule.param_groups[0]["lr"] == 0.5 for rule in rules)


def test_another_class_of_the_same_name_has_none():
    class Adafactor(torch.optim.SGD):
        pass

    assert rules_of(Adafactor([nn.Parameter(torch.ones(2, 2))], lr=0.5)) == []


def test_it_trains_in_turn_unless_both_are_written_out(monkeypatch):
    monkeypatch.setattr(optimizers, "Own", type("Own", (torch.optim.SGD,), {}), raising=False)
    runs = train_all(
        QUICK, small_trainings(seeds=range(4)), parse_optimizer("Muon | optimizers.Own")
    )
    assert not runs.stacked
    assert "alone (not both parts are an UpdateRule)" in runs.remarks[0]


def test_a_training_is_that_of_a_textbook():
    spec, (training,) = parse_optimizer(PAIR), small_trainings(seeds=[3])
    runs = train_in_turn(SMALL, [training], spec, no_progress)
    nets = []

    def make_net():
        nets.append(SmallNet())
        return nets[0]

    losses, _ = textbook_training(
        training.dataset, make_net, lambda _: Parts(*pair_of(nets[0])), SMALL.loss, 3, 6, 32
    )
    assert runs.history(0) == losses


# ---------------------------------------------------------------- as one types it


def test_the_first_takes_the_matrices_and_the_schedule_both():
    text = "M=optimizers.Muon(momentum=0.9) | Momentum + StepLR(step_size=2)"
    spec = parse_optimizer(text, lr=0.1)
    assert spec.label == "M"
    parts = make_for(spec, net_of())
    muon, sgd = parts.parts
    assert [type(part) for part in parts.parts] == [optimizers.Muon, torch.optim.SGD]
    assert [group["lr"] for group in parts.param_groups] == [0.1, 0.1]
    assert muon.param_groups[0]["momentum"] == 0.9
    assert sgd.param_groups[0]["momentum"] == 0.8  # the preset's
    assert [len(part.param_groups[0]["params"]) for part in parts.parts] == [1, 3]
    assert [scheduler.name for scheduler in spec.schedulers] == ["StepLR"]


@pytest.mark.parametrize("text", [f"M={PAIR}", "M=Muon | Adam + StepLR(step_size=2)"])
def test_its_call_parses_back_and_it_is_pickled_by_name(text):
    spec = parse_optimizer(text)
    assert parse_optimizer(f"M={spec.call}") == spec
    assert pickle.loads(pickle.dumps(spec)) == spec


def groups_at(text, lr):
    (spec,) = parse_optimizers([text], sweeping=True).values()
    return make_for(spec, net_of(), lr).param_groups


def rates_at(text, lr):
    return [group["lr"] for group in groups_at(text, lr)]


def test_in_a_sweep_a_ratio_of_rates_is_kept_or_the_second_ones_own():
    assert rates_at("Muon(lr=0.02) | AdamW(lr=0.005)", 0.4) == pytest.approx([0.4, 0.1])
    assert rates_at("Muon | AdamW(lr=0.005)", 0.4) == [0.4, 0.005]
    assert rates_at("Muon | AdamW", 0.4) == [0.4, 0.4]
    assert rates_at("Muon | optimizers.Prodigy", 0.4) == [0.4, 0.4]


def test_outside_a_sweep_both_rates_are_as_named():
    groups = make_for(parse_optimizer(PAIR, lr=0.5), net_of()).param_groups
    assert [group["lr"] for group in groups] == [0.02, 0.003]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Muon | AdamW | SGD", "more than two parts"),
        ("Muon | (AdamW | SGD)", "more than two parts"),
        ("Muon | X=AdamW", "a label stands before both"),
        ("Muon || AdamW", "with one bar"),
        ("Muon & AdamW", "with one bar"),
        ("Muon | LBFGS", "LBFGS calls its closure itself"),
        ("optimizers.LBFGS | AdamW", "LBFGS calls its closure itself"),
        ("Muon + StepLR(step_size=1) | AdamW", "write the schedule at the end"),
        ("Muon | ", "not of the form"),
        ("Muon(lrr=1) | AdamW", "did you mean lr"),
        ("Muon | AdamW(betaz=1)", "did you mean betas"),
        ("Muon | AdamX", "unknown optimizer 'AdamX'"),
        ("Muon | AdamW(lr=-1)", "lr=-1 is not"),
    ],
)
def test_wrong_words_are_named(text, words):
    with pytest.raises(ValueError, match=words):
        parse_optimizers([text])


@pytest.mark.parametrize("name", ["Muon", "optimizers.Muon"])
def test_who_names_muon_alone_is_told_of_two_parts(name, workdir, capsys):
    with pytest.raises(SystemExit):
        compare_optimizers.main([*FAST, "--optimizers", name])
    assert capsys.readouterr().err.endswith('; let another move the rest: "Muon | AdamW"\n')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Muon(lr=0.1) | AdamW", "name both or none"),
        ("Muon(lr='a') | AdamW(lr=0.1)", "name both or none"),
        ("Muon | AdamW + OneCycleLR(max_lr=1, total_steps=9)", "a schedule .* compare_optimizers"),
    ],
)
def test_a_sweep_wants_both_rates_or_none(text, words):
    with pytest.raises(ValueError, match=words):
        parse_optimizers([text], sweeping=True)


def test_in_a_sweep_its_call_has_the_ratio():
    texts = "Muon(lr=0.02) | AdamW(lr=0.005)", "Muon(lr=1.0) | AdamW(lr=0.25)"
    specs = [parse_optimizers([text], sweeping=True) for text in texts]
    assert [spec.call for (spec,) in map(dict.values, specs)] == [texts[1]] * 2


class Signs(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {})

    def step(self):
        for param in self.param_groups[0]["params"]:
            param.data -= 0.01 * param.grad.sign()


def test_in_a_sweep_the_second_may_have_no_lr(monkeypatch):
    monkeypatch.setattr(optimizers, "Signs", Signs, raising=False)
    groups = groups_at("Muon | optimizers.Signs", 0.4)
    assert [group.get("lr") for group in groups] == [0.4, None]


def test_what_is_kept_is_kept_under_a_name_of_both():
    texts = [PAIR, "Muon(lr=0.02) | AdamW(lr=0.004)", "Muon(lr=0.02) | Adam(lr=0.003)"]
    specs = [*map(parse_optimizer, texts), *parse_optimizers(texts[:2], sweeping=True).values()]
    assert len({name_of_code(SMALL, spec) for spec in specs}) == 5


def test_a_space_may_have_two_parts():
    space = parse_space("Muon(lr=log(1e-3, 1), momentum=0.9 or 0.95) | AdamW(lr=0.003)")
    assert set(space.ranges) == {"lr", "momentum"}
    trial = space.draw(4, seed=0, epochs=5)[1]
    muon, adamw = make_for(trial.make_optimizer, net_of(), trial.lr, trial.settings).param_groups
    assert muon["lr"] == trial.lr
    assert muon["momentum"] == trial.settings["momentum"]
    assert adamw["lr"] == 0.003
    assert "| AdamW(lr=0.003)" in trial.written
    with pytest.raises(ValueError, match="literal"):
        parse_space("Muon | AdamW(lr=log(1e-3, 1))")
    assert parse_space("M=Muon|AdamW").ranges == parse_space("Muon | AdamW").ranges


def test_today_is_the_list_of_settings_each_with_a_rate_to_sweep():
    specs = parse_optimizers(["SGD", "today"], sweeping=True)
    assert [*specs] == ["SGD", *TODAY]
    for spec in specs.values():
        assert make_for(spec, net_of(), 0.25).param_groups[0]["lr"] == 0.25


# ---------------------------------------------------------------- in the scripts

FAST = ["--seeds", "2", "--no-show"]


def test_which_parameters_go_where_is_said_once(workdir, capsys):
    words = [*FAST, "--epochs", "1", "--optimizers", PAIR, "Adam"]
    assert compare_optimizers.main(words) == 0
    assert capsys.readouterr().out.count("Muon moves hidden.weight; AdamW moves the rest") == 1


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (compare_optimizers, [*FAST, "--task", "logistic"]),
        (compare_learning_rates, [*FAST, "--task", "scales"]),
        (compare_tasks, [*FAST, "--tasks", "parabola", "scales"]),
        (compare_budgets, [*FAST, "--tasks", "scales"]),
        (compare_paths, ["--no-show"]),
    ],
)
def test_a_net_without_such_matrices_is_refused_in_a_line(script, words, workdir, capsys):
    with pytest.raises(SystemExit) as end:
        script.main([*words, "--optimizers", "Muon | AdamW"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.endswith("there is no weight matrix of a hidden layer for Muon")


def test_which_of_several_tasks_has_none_is_said(workdir, capsys):
    words = [*FAST, "--tasks", "parabola", "scales", "--optimizers", "Muon | AdamW"]
    with pytest.raises(SystemExit):
        compare_tasks.main(words)
    assert "error: task scales: Muon() | AdamW(): there is no" in capsys.readouterr().err


def test_two_of_one_name_are_told_apart():
    said = parse_optimizer("SGD | Momentum").where(net_of())
    assert said == "the first moves layers.0.weight; the second moves the rest"


def test_of_all_tasks_those_are_left_out(workdir, capsys, monkeypatch):
    flat = replace(QUICK, make_net=partial(nn.Linear, 1, 1))
    for module in ("specs", "tasks"):
        monkeypatch.setattr(f"lab.command_line.{module}.TASKS", {"flat": flat, "deep": QUICK})
    words = ["--optimizers", "Muon | AdamW", "--lr-count", "2", "--judges", "2", "--tasks", "all"]
    assert compare_tasks.main([*FAST, *words]) == 0
    out, err = capsys.readouterr()
    assert "left out: task flat: Muon() | AdamW(): there is no weight matrix" in err
    assert "deep " in out
    assert "flat" not in out
