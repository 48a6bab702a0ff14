"""The live page's own modules, run in a JavaScript engine, against PyTorch."""

import base64
import json
import math
import random
import re
from functools import cache, partial

from lab.command_line.specs import parse_optimizers
from lab.live.page import HERE, MODULES, Page, encode, html, script
from lab.training.statistics import quartiles, steps_to_target

import pytest
import pytorch_optimizer
import torch
from conftest import assert_refused, textbook_training
from py_mini_racer import MiniRacer
from torch import optim

import compare_optimizers
from settings import LR, OPTIMIZERS
from tasks import TASKS

# What a browser has, and a bare engine has not.
BROWSER = """
globalThis.atob = (text) => {
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  let [bits, count, result] = [0, 0, ""];
  for (const letter of text.replace(/=/g, "")) {
    [bits, count] = [(bits << 6) | letters.indexOf(letter), count + 6];
    if (count >= 8) result += String.fromCharCode((bits >> (count -= 8)) & 255);
  }
  return result;
};
globalThis.performance = { now: () => Date.now() };
"""
WITHOUT_BROWSER = [name for name in MODULES if name not in ("controls", "table", "bars", "page")]
SEEDS = range(81, 84)


class Engine:
    """The page's modules, with the data of a task."""

    def __init__(self, content):
        self.context = MiniRacer()
        self.context.eval(f"{BROWSER}{script(WITHOUT_BROWSER)}")
        self.context.eval(f"const embedded = {json.dumps(content)}")
        self.context.eval("const problem = problemOf(embedded)")

    def __call__(self, expression):
        """Return the value of an expression."""
        return json.loads(self.context.eval(f"JSON.stringify({expression})"))

    def losses(self, optimizer, batch_size, epochs=1, seed=0, noise=None):
        noise = "embedded.start.noise" if noise is None else noise
        setting = json.dumps({"batchSize": batch_size, "epochs": epochs})
        data = f"dataOf(embedded, {seed}, {noise})"
        training = f"new Training(problem, {data}, {json.dumps(optimizer)}, {setting})"
        return self(f"Array.from({training}.advance().history)")


@cache
def page_of(name):
    return Page(TASKS[name], parse_optimizers(OPTIMIZERS, LR), SEEDS[0])


@cache
def checks_of():
    return [*page_of("parabola").checks()]


@cache
def engine_of(name):
    return Engine(page_of(name).content)


def torchs_losses(name, make_optimizer, batch_size, epochs=1, seed=0, make_data=None):
    """Return the losses of the loop of every tutorial."""
    task = TASKS[name]
    dataset, _ = (make_data or task.make_data)(SEEDS[seed])
    setting = (task.make_net, make_optimizer, task.loss, SEEDS[seed], epochs, batch_size)
    return textbook_training(dataset, *setting)[0]


def assert_same_losses(ours, theirs, batch_size, rtol=1e-4):
    """Of a mini-batch of one, a loss may be next to 0, and is held against a usual one, 0.1."""
    atol = 0.1 * rtol if batch_size == 1 else 0
    assert len(ours) == len(theirs)
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=rtol, atol=atol)


TORCHS = {
    "SGD": optim.SGD,
    "Momentum": optim.SGD,
    "Nesterov": partial(optim.SGD, nesterov=True),
    "Adagrad": optim.Adagrad,
    "RMSprop": optim.RMSprop,
    "Adam": optim.Adam,
    "AdamW": optim.AdamW,
    "Lion": pytorch_optimizer.Lion,
}
# Within these a training does not blow up the rounding of float32, even over a thousand steps.
RATES = {
    "SGD": (1e-3, 0.1),
    "Momentum": (1e-3, 0.03),
    "Nesterov": (1e-3, 0.03),
    "Adagrad": (1e-3, 0.3),
    "RMSprop": (1e-4, 0.01),
    "Adam": (1e-4, 0.02),
    "AdamW": (1e-4, 0.02),
    "Lion": (1e-5, 1e-3),
}


def hyperparameters_of(rule, names, chance):
    """Return a setting of them, by chance, as the page has it and as torch has it."""
    of_all = {
        "lr": math.exp(chance.uniform(*map(math.log, RATES[rule]))),
        "momentum": chance.uniform(0.1, 0.95),
        "alpha": chance.uniform(0.5, 0.999),
        "beta1": chance.uniform(0.1, 0.95),
        "beta2": chance.uniform(0.95, 0.9999),
        "eps": 10 ** chance.uniform(-10, -1),
        "weight_decay": chance.choice([0, 10 ** chance.uniform(-4, -1)]),
    }
    own = {name: of_all[name] for name in names}
    theirs = {name: value for name, value in own.items() if not name.startswith("beta")}
    if "beta1" in own:
        theirs["betas"] = own["beta1"], own["beta2"]
    return own, theirs


@pytest.mark.parametrize("rule", TORCHS)
def test_every_optimizer_trains_as_torchs_does(rule):
    engine, chance = engine_of("parabola"), random.Random(rule)
    names = engine(f"Object.keys(RULES.{rule}.hyperparameters)")
    for number, batch_size in enumerate([32, 1, 8, 100, 1000, 16, 250, 64, 32, 999]):
        own, theirs = hyperparameters_of(rule, names, chance)
        seed = number % len(SEEDS)
        assert_same_losses(
            engine.losses({"rule": rule, **own}, batch_size, seed=seed),
            torchs_losses("parabola", lambda p: TORCHS[rule](p, **theirs), batch_size, seed=seed),
            batch_size,
        )


def test_the_page_has_these_optimizers_and_no_others():
    assert list(TORCHS) == engine_of("parabola")("Object.keys(RULES)")


@pytest.mark.parametrize("name", ["sine", "spirals", "deep"])
def test_other_nets_and_losses_train_as_torchs_do(name):
    adam = {"rule": "Adam", "lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    for batch_size in (32, 97):
        theirs = torchs_losses(name, partial(optim.Adam, lr=0.01), batch_size, seed=1)
        assert_same_losses(engine_of(name).losses(adam, batch_size, seed=1), theirs, batch_size)


def test_the_tutorials_losses_agree_to_the_last_step():
    engine, page = engine_of("parabola"), page_of("parabola")
    for optimizer, spec in zip(
        page.content["start"]["optimizers"], page.optimizers.values(), strict=True
    ):
        theirs = torchs_losses("parabola", spec, 32, epochs=12)
        assert_same_losses(engine.losses(optimizer, 32, epochs=12), theirs, 32, rtol=1e-5)


def test_a_training_ends_with_the_first_loss_that_is_not_finite():
    sgd = {"rule": "SGD", "lr": 100.0}
    ours = engine_of("parabola").losses(sgd, 32, epochs=12)
    theirs = torchs_losses("parabola", partial(optim.SGD, lr=100.0), 32, epochs=12)
    ends = [next(i for i, loss in enumerate(theirs) if not math.isfinite(loss)) + 1]
    assert ours[-1] is None  # JSON's infinity
    assert len(ours) in (ends[0] - 1, ends[0], ends[0] + 1)


@pytest.mark.parametrize("name", ["parabola", "sine", "spirals"])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1, 0.37])
def test_data_with_another_noise_are_those_that_torch_makes(name, noise):
    engine = engine_of(name)
    for seed in (0, 2):
        parts = zip(
            ("train", "heldOut"), TASKS[name].make_data(SEEDS[seed], noise=noise), strict=True
        )
        for part, dataset in parts:
            x, y = dataset.tensors
            columns = torch.cat([x, y.float().reshape(len(x), -1)], dim=1).T
            of_part = f"dataOf(embedded, {seed}, {noise}).{part}"
            ours = engine(f"[...{of_part}.x, ...{of_part}.y].map((column) => Array.from(column))")
            torch.testing.assert_close(torch.tensor(ours), columns, rtol=1e-6, atol=1e-6)


def test_at_the_tasks_own_noise_data_are_the_same_to_the_last_bit():
    _, y = TASKS["parabola"].make_data(SEEDS[1])[0].tensors
    ours = engine_of("parabola")("Array.from(dataOf(embedded, 1, 0.1).train.y[0])")
    assert torch.equal(torch.tensor(ours), y[:, 0])


@pytest.mark.parametrize("rule", TORCHS)
def test_the_terms_inside_a_step_end_in_the_step_that_is_taken(rule):
    steps = engine_of("parabola")(f"""(() => {{
        const optimizer = {{ rule: "{rule}", ...RULES.{rule}.hyperparameters, weight_decay: 0 }};
        const setting = {{ batchSize: 32, epochs: 1 }};
        const training = new Training(problem, dataOf(embedded, 0, 0.1), optimizer, setting);
        const pairs = [];
        for (let k = 0; k < 20; k++) {{
          const before = Float64Array.from(training.theta);
          training.advance(1);
          for (const w of [3, 25, 47, 60]) {{
            const remembered = {{}};
            for (const name of training.rule.memory) remembered[name] = training.memory[name][w];
            const terms = training.rule.inside(training.g[w], remembered, optimizer, training.t);
            pairs.push([Object.values(terms).at(-1), training.theta[w] - before[w]]);
          }}
        }}
        return pairs;
    }})()""")
    ours, real = torch.tensor(steps, dtype=torch.float64).T
    torch.testing.assert_close(ours, real, rtol=1e-7, atol=1e-15)
    assert real.abs().max() > 1e-4


def test_the_page_finds_that_it_agrees_with_torch():
    checks = json.dumps(checks_of())
    results = engine_of("parabola")(f"{checks}.map((one) => check(embedded, problem, one))")
    assert len(results) == 16
    assert all(result["passed"] for result in results)
    assert all(result["agrees"] == result["steps"] for result in results)


@pytest.mark.parametrize(("number", "place"), [(0, 9), (8, 31), (15, 0)])
def test_a_wrong_loss_of_the_first_epoch_does_not_agree(number, place):
    one = checks_of()[number]
    losses = torch.frombuffer(bytearray(base64.b64decode(one["losses"])), dtype=torch.float32)
    losses[place] *= 1.0001
    wrong = one | {"losses": encode(losses, "<f4")}
    result = engine_of("parabola")(f"check(embedded, problem, {json.dumps(wrong)})")
    assert (result["passed"], result["agrees"]) == (False, place)
    assert result["there"] == pytest.approx(1.0001 * result["here"], rel=1e-5)


# ---------------------------------------------------------------- what is not arithmetic


def lab(setting="", work="while (lab.work(1000));"):
    """A lab that has worked, as an expression, with the start's setting and what differs."""
    return f"""(() => {{
        const lab = new Lab(embedded);
        lab.set({{ ...startOf(embedded), {setting} }});
        {work}
        return lab;
    }})()"""


def test_the_curve_of_rates_has_the_losses_of_trainings_at_these_rates():
    engine = engine_of("parabola")
    rates, sweeps = (
        engine("RATES"),
        engine(f"{lab('epochs: 2')}.sweepsNow.map((it) => it.sweep.losses)"),
    )
    assert len(rates) == 25
    assert [len(losses) for losses in sweeps] == [25] * 4
    task = TASKS["parabola"]
    train, _ = task.make_data(SEEDS[0])
    for k in (8, 14):
        adam = partial(optim.Adam, lr=rates[k], betas=(0.9, 0.99))
        _, net = textbook_training(train, task.make_net, adam, task.loss, SEEDS[0], 2, 32)
        loss = task.loss(net(train.tensors[0]), train.tensors[1]).item()
        assert sweeps[3][k] == pytest.approx(loss, rel=1e-4)
    assert sweeps[0][-1] is None  # SGD diverges at 10


def test_many_seeds_train_each_as_alone():
    engine = engine_of("parabola")
    runs = f"{lab('seeds: 3, epochs: 1')}.runs"
    ours = engine(f"{runs}[3].trainings.map(({{ history }}) => Array.from(history))")
    for seed, losses in enumerate(ours):
        adam = partial(optim.Adam, lr=0.01, betas=(0.9, 0.99))
        assert_same_losses(losses, torchs_losses("parabola", adam, 32, seed=seed), 32)


def test_work_goes_by_pieces_and_what_stays_the_same_is_not_trained_again():
    engine = engine_of("parabola")
    assert engine(f"{lab(work='lab.work(-1);')}.runs.map((run) => run.trainings[0].t)") == [
        16,
        0,
        0,
        0,
    ]
    kept, anew = engine(f"""(() => {{
        const lab = {lab()};
        const before = lab.runs.map(({{ trainings }}) => trainings[0]);
        const setting = startOf(embedded);
        setting.optimizers[1].lr = 0.02;
        lab.set(setting);
        const kept = lab.runs.map(({{ trainings }}, k) => trainings[0] === before[k]);
        lab.set(setting, true);
        return [kept, lab.runs.map(({{ trainings }}, k) => trainings[0] === before[k])];
    }})()""")
    assert (kept, anew) == ([True, False, True, True], [False] * 4)


def test_every_setting_comes_back_from_its_address():
    engine, chance = engine_of("parabola"), random.Random(1)
    for _ in range(40):
        optimizers = []
        for rule in chance.choices(list(TORCHS), k=chance.randint(1, 6)):
            names = engine(f"Object.keys(RULES.{rule}.hyperparameters)")
            own, _ = hyperparameters_of(rule, names, chance)
            label = f"{rule} {len(optimizers)} = (&#%ü"
            is_on = chance.random() < 0.7
            optimizers.append({"label": label, "rule": rule, **own, "isOn": is_on})
        setting = engine("startOf(embedded)") | {
            "optimizers": optimizers,
            "of": optimizers[-1]["label"],
            "batchSize": chance.randint(1, 1000),
            "epochs": chance.randint(1, 24),
            "noise": chance.choice([0, 0.25]),
            "seeds": chance.randint(1, 10),
            "inside": chance.random() < 0.5,
            "weight": chance.randint(0, 60),
        }
        address = engine(f"toAddress({json.dumps(setting)}, embedded)")
        assert engine(f"fromAddress({json.dumps('#' + address)}, embedded)") == setting
    assert engine("toAddress(startOf(embedded), embedded)") == ""


@pytest.mark.parametrize(
    "address",
    [
        "#",
        "#o=Adam",
        "#o=Adam(lr=0)",
        "#o=Adam(lr=1e999)",
        "#o=Adam(beta1=1)",
        "#o=Adam(rho=1)",
        "#o=toString(lr=1)",
        "#batch=0&epochs=99&noise=-1&seed=5&seeds=11&step=0",
        "#batch=1.5&epochs=&seeds=x",
        "#%",
        "#of=Nobody",
    ],
)
def test_what_an_address_cannot_say_is_as_at_the_start(address):
    engine = engine_of("parabola")
    assert engine(f"fromAddress({json.dumps(address)}, embedded)") == engine("startOf(embedded)")


def test_medians_and_steps_to_the_target_are_those_of_the_table():
    engine, chance = engine_of("parabola"), random.Random(2)
    for n in (1, 2, 3, 10):
        values = [chance.choice([chance.random(), math.inf]) for _ in range(n)]
        text = json.dumps(values).replace("Infinity", "1 / 0")
        theirs = pytest.approx(quartiles(torch.tensor(values)).tolist())
        for ours in (f"quartiles({text})", f"bandOf({text}.map((x) => [x]), 1).map(([x]) => x)"):
            assert [math.inf if x is None else x for x in engine(ours)] == theirs
    losses = [chance.random() / (1 + k / 20) for k in range(400)]
    for target in (0.3, 0.1, 0.0):
        steps = engine(f"stepsToTarget({losses}, {target}, 32)")
        assert (steps or math.inf) == steps_to_target(losses, target, 32)


def test_a_guess_is_judged_by_pairs():
    judged = engine_of("parabola")("""(() => {
        const guess = new Guess();
        const results = [];
        for (const order of [["a", "b", "c"], ["b", "a", "c"], ["c", "b", "a"]]) {
          guess.ask();
          order.forEach((label) => guess.choose(label));
          guess.judge({ a: 0.01, b: 0.0102, c: Infinity });
          results.push([guess.pairs.right, guess.right, guess.asked]);
        }
        return results;
    })()""")
    assert judged == [[3, 1, 1], [3, 2, 2], [1, 2, 3]]  # a and b are as good as equal


def test_both_languages_say_the_same_things_and_the_page_uses_each():
    text = script()
    english, chinese = engine_of("parabola")("[WORDS.en, WORDS.zh].map((it) => Object.keys(it))")
    assert english == chinese
    template = (HERE / "template.html").read_text(encoding="utf-8")
    hyperparameters = engine_of("parabola")("Object.keys(VALUES)")
    for name in english:
        used = rf'words\.{name}\b|data-word="{name}"|own\(\s*"{name}"|\b{name}\b.*= this\.words;'
        assert name in hyperparameters or re.search(used, text + template), name


# ---------------------------------------------------------------- the file


@pytest.mark.parametrize("name", ["parabola", "sine", "spirals", "deep"])
def test_the_file_is_not_too_large(name):
    page = page_of(name)
    assert len(html(page.content).encode()) + page.size_of_checks() <= 400_000
    assert len(page.content["seeds"]) >= (10 if name == "parabola" else 3)
    assert len(json.dumps(checks_of())) <= page_of("parabola").size_of_checks()


def test_the_page_fetches_nothing():
    text = re.sub(
        r'<script type="application/json".*?</script>', "", html(page_of("parabola").content)
    )
    assert not re.search(r"https?://|\bfetch\(|XMLHttpRequest|@import|\bsrc=|url\(", text)


def test_the_command_line_saves_it(workdir, capsys):
    words = [
        "--live",
        "page.html",
        "--no-show",
        "--epochs",
        "1",
        "--optimizers",
        "Adam",
        "x</script>=SGD",
    ]
    assert compare_optimizers.main(words) == 0
    assert "\nsaved page.html\n" in capsys.readouterr().out
    text = (workdir / "page.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 2
    assert {path.name for path in workdir.iterdir()} == {"page.html", "compare_optimizers.png"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optimizers", "Adam", "Rprop"], "--live trains SGD, Adagrad, RMSprop, Adam, AdamW"),
        (["--optimizers", "Adam(amsgrad=True)"], "--live has no 'amsgrad'"),
        (["--optimizers", "SGD + StepLR(step_size=3)"], "--live has no schedules"),
        (["--optimizers", "optimizers.Adam"], "and not optimizers.Adam(lr=0.01)"),
        (["--task", "terrain"], "--live draws a curve of one input, or regions"),
        (["--task", "scales"], "--live draws a curve of one input, or regions"),
        (
            ["--task", "parabola(samples=30000)"],
            "a page for 30000 samples, 12 epochs, 1 seeds has more",
        ),
        (["--seeds", "11"], "--live has room for 10 seeds, not for 11"),
        (["--task", "homework.other_loss"], "--live has mse_loss for a curve"),
        (["--task", "homework.other_net"], "--live trains dense nets with relu or tanh"),
        (["--live", "page.png"], "'page.png' is no .html"),
    ],
)
def test_what_the_page_cannot_train_is_refused_before_training(
    words, message, homework, workdir, capsys, monkeypatch
):
    monkeypatch.setattr(
        "lab.training.check_data.MAX_SAMPLES", 10**6
    )  # or more is said of large data
    homework(
        """
from dataclasses import replace
from torch import nn
from tasks import TASKS

other_loss = replace(TASKS["parabola"], loss=nn.functional.l1_loss)
make_net = lambda: nn.Sequential(nn.Linear(1, 4), nn.Sigmoid(), nn.Linear(4, 1))
other_net = replace(TASKS["parabola"], make_net=make_net)
"""
    )
    words = ["--no-show", *([] if "--live" in words else ["--live", "page.html"]), *words]
    assert_refused(compare_optimizers.main, words, message, workdir, capsys)


# ---------------------------------------------------------------- the pages for teachers

DOCS = HERE.parents[1] / "docs"


def addresses(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    return re.findall(r"page\.html(#[^()]*(?:\([^()]*\)[^()]*)*)\)", text)


def ends(address):
    """Return label, loss after training, and steps to the target of each optimizer."""
    return engine_of("parabola")(f"""(() => {{
        const lab = new Lab(embedded);
        lab.set(fromAddress({json.dumps(address)}, embedded));
        while (lab.trainOn());
        return lab.runs.map(({{ trainings }}) => [
          quartiles(trainings.map(({{ end }}) => end.loss))[1],
          stepsToTarget(trainings[0].history, embedded.target, trainings[0].stepsPerEpoch),
        ]);
    }})()""")


def test_the_links_of_docs_are_settings():
    engine = engine_of("parabola")
    assert addresses("live.md") == addresses("live.zh-CN.md")
    assert len(addresses("live.md")) == 7
    for address in addresses("live.md"):
        setting = f"fromAddress({json.dumps(address)}, embedded)"
        again = engine(f"toAddress({setting}, embedded)")
        assert sorted(again.split("&")) == sorted(address[1:].split("&"))


def test_what_docs_say_of_these_settings_is_so():
    _, rates, momentum, inside, one, _, clean = addresses("live.md")
    start = ends("#")
    assert all(0.0105 < loss < 0.012 for loss, _ in ends(rates))
    assert start[0][0] == pytest.approx(5 * start[3][0], rel=0.05)
    assert [steps for _, steps in ends(momentum)] == [121, 121]
    assert min(loss for loss, _ in ends(one)) > 0.05
    assert ends(clean)[3][0] == pytest.approx(1e-4, rel=0.5)
    first, later = engine_of("parabola")(f"""(() => {{
        const lab = new Lab(embedded);
        lab.set(fromAddress("{inside}", embedded));
        while (lab.work(1000));
        return [1, 40].map((t) => lab.recorder.steps[t - 1][0].terms.step);
    }})()""")
    assert abs(first) == pytest.approx(0.01, rel=1e-5)
    assert abs(later) == pytest.approx(0.01 / 3, rel=0.2)


def test_the_accuracy_is_the_share_of_the_held_out_set_that_is_right():
    task, (train, held_out) = TASKS["spirals"], TASKS["spirals"].make_data(SEEDS[0])
    adam = partial(optim.Adam, lr=0.03)
    _, net = textbook_training(train, task.make_net, adam, task.loss, SEEDS[0], 4, 32)
    x, y = held_out.tensors
    ours = engine_of("spirals")("""(() => {
        const lab = new Lab(embedded);
        lab.set(fromAddress("#epochs=4&o=Adam(lr=0.03)", embedded));
        while (lab.trainOn());
        return lab.runs[0].trainings[0].accuracy;
    })()""")
    assert 0.6 < ours < 1
    assert ours == pytest.approx((net(x).argmax(1) == y).float().mean().item(), abs=0.002)
