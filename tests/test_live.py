"""The live page's own modules, run in a JavaScript engine, against PyTorch."""

import base64
import json
import math
import random
from functools import cache, partial

from lab.live.page import MODULES, Page, encode, script
from lab.specs import parse_optimizers

import pytest
import pytorch_optimizer
import torch
from conftest import textbook_training
from py_mini_racer import MiniRacer
from torch import optim

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
"""
LAST_ENGINE_MODULE = "check"  # those after it need a browser
SEEDS = range(81, 84)


class Engine:
    """The page's modules, with the data of a task."""

    def __init__(self, content):
        self.context = MiniRacer()
        modules = MODULES[: MODULES.index(LAST_ENGINE_MODULE) + 1]
        self.context.eval(f"{BROWSER}{script(modules)}")
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
    page = Page(TASKS[name], parse_optimizers(OPTIMIZERS, LR), SEEDS[0])
    page.content["checks"] = [*page.checks()]
    return page


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
    for number, batch_size in enumerate([32, 1, 8, 100, 1000] * 2):
        own, theirs = hyperparameters_of(rule, names, chance)
        seed = number % len(SEEDS)
        assert_same_losses(
            engine.losses({"rule": rule, **own}, batch_size, seed=seed),
            torchs_losses("parabola", lambda p: TORCHS[rule](p, **theirs), batch_size, seed=seed),  # noqa: B023
            batch_size,
        )


def test_the_page_has_these_optimizers_and_no_others():
    assert list(TORCHS) == engine_of("parabola")("Object.keys(RULES)")


@pytest.mark.parametrize("name", ["sine", "spirals", "deep"])
def test_other_nets_and_losses_train_as_torchs_do(name):
    adam = {"rule": "Adam", "lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    for batch_size in (32, 7):
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


@pytest.mark.parametrize("name", ["parabola", "sine", "spirals", "deep"])
def test_the_page_finds_that_it_agrees_with_torch(name):
    results = engine_of(name)("embedded.checks.map((one) => check(embedded, problem, one))")
    assert len(results) == 16
    assert all(result["passed"] for result in results)
    if name == "parabola":
        assert all(result["agrees"] == result["steps"] for result in results)


@pytest.mark.parametrize("number", [0, 7, 15])
def test_a_wrong_loss_does_not_agree(number):
    one = page_of("parabola").content["checks"][number]
    losses = torch.frombuffer(bytearray(base64.b64decode(one["losses"])), dtype=torch.float32)
    losses[9] *= 1.0001
    wrong = one | {"losses": encode(losses, "<f4")}
    result = engine_of("parabola")(f"check(embedded, problem, {json.dumps(wrong)})")
    assert (result["passed"], result["agrees"]) == (False, 9)
    assert result["there"] == pytest.approx(1.0001 * result["here"], rel=1e-5)
