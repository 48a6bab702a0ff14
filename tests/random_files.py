"""Random small files: a task of parts that go together, or with a fault, and an optimizer."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from small_files import Maybe
from torch import Tensor

LR = 0.02

# ---------------------------------------------------------------- what a task is made of

FILE = """\
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from data import split
from tasks import Task

g = torch.Generator().manual_seed({number})
x = {x}
y = {y}


def make_data(seed):
    return {data}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        {layers}

    def forward(self, x):
        {forward}


def loss(outputs, y):
    return {loss}


{before}mine = Task(make_data, {make_net}, loss, {epochs}, {batch_size})
"""


def logit(outputs: Tensor, y: Tensor) -> Tensor:
    return (outputs > 0) == (y > 0.5)


def scores(outputs: Tensor, y: Tensor) -> Tensor:
    return outputs.argmax(1) == y


def labelled(outputs: Tensor, y: Tensor) -> Tensor:
    return (outputs.argmax(1) == y)[y >= 0]


@dataclass
class Loss:
    """The targets, the loss of the outputs `{0}`, how many there are, and which are right."""

    y: str
    text: str
    n_outputs: int = 1
    is_right: Any = None
    finish: str = "out"


SUM = "x.flatten(1).double().sum(1, keepdim=True)"
CLASS = f"({SUM} > {SUM}.median()).long()"
BCE = "F.binary_cross_entropy_with_logits({0}, y.float())"
LOSSES = [
    Loss(f"{SUM}.float()", "F.mse_loss({0}, y)"),
    Loss(f"{SUM}.float().sin()", "F.l1_loss({0}, y)"),
    Loss(f"{SUM}.float() * torch.ones(2)", "F.huber_loss({0}, y)", 2),
    Loss(f"{SUM}.float()[:, 0]", "F.mse_loss({0}, y)", finish="out.flatten()"),
    Loss(f"{SUM}.float()[:, 0]", "F.mse_loss({0}.squeeze(1), y)"),
    Loss(SUM, "F.mse_loss({0}, y)"),  # of double
    Loss(f"(5 * {SUM}).long()", "F.mse_loss({0}, y)"),
    Loss(f"{CLASS}[:, 0]", "F.cross_entropy({0}, y)", 2, scores),
    Loss(f"{CLASS}[:, 0]", "F.cross_entropy({0}, y, label_smoothing=0.1)", 3, scores),
    Loss(f"{CLASS}[:, 0]", "F.nll_loss({0}, y)", 2, scores, "out.log_softmax(1)"),
    Loss(f"{CLASS}[:, 0].where(torch.rand(len(x), generator=g) > 0.2, -100)",
         "F.cross_entropy({0}, y)", 2, labelled),
    Loss(f"{CLASS}[:, 0]", BCE, 1, logit, "out.flatten()"),
    Loss(CLASS, BCE, 1, logit),
    Loss(f"{CLASS}.bool()", BCE, 1, logit),
    Loss(f"{CLASS}.float()", BCE, 1, Maybe(logit)),
    Loss(f"{CLASS} * torch.ones(2).long()", BCE, 2, Maybe(logit)),
    Loss(f"2 * {CLASS} - 1", "F.relu(1 - y * {0}).mean()", 1,
         Maybe(lambda outputs, y: (outputs > 0) == (y > 0))),
    Loss(f"torch.poisson(4 * {SUM}.sigmoid(), generator=g).long()", "F.poisson_nll_loss({0}, y)"),
    Loss(f"{SUM}.float()", "torch.maximum(0.9 * (y - {0}), 0.1 * ({0} - y)).mean()", 3),
    Loss(f"{SUM}.float().tanh()",
         "0.5 * ({0}[:, 1:] + (y - {0}[:, :1]) ** 2 / {0}[:, 1:].exp()).mean() - 3", 2),
]  # fmt: skip

INPUTS = [  # x of {n} samples, what makes it (n, features) of floats, and how many features
    ("torch.randn({n}, 1, generator=g)", "x", 1),
    ("torch.randn({n}, 3, generator=g)", "x", 3),
    ("(99 * torch.rand({n}, 1, 2, 2, generator=g)).to(torch.uint8)", "x.flatten(1) / 99", 4),
    ("torch.randint(5, ({n}, 2), generator=g)", "F.one_hot(x, 5).float().flatten(1)", 10),
]
DATA = [
    "split(seed, x, y, held_out={k})",
    "list(split(seed, x, y, held_out={k}))",
    "TensorDataset(x[{k}:], y[{k}:]), TensorDataset(x[:{k}], y[:{k}])",
]

# A line of __init__, and one of forward. Batch norm comes first, right after a layer without a
# bias: the gradient of a bias before it is nothing but rounding, of which Adam makes whole steps.
NORMS = [
    ("self.norm = nn.BatchNorm1d({h})", "h = self.norm(h)"),
    ("self.norm = nn.BatchNorm1d({h}, track_running_stats=False)", "h = self.norm(h)"),
    ("self.norm = nn.BatchNorm1d({h}).eval()", "h = self.norm(h)"),
]
PARTS = [
    ("self.norm2 = nn.LayerNorm({h})", "h = self.norm2(h)"),
    ("self.drop = nn.Dropout(0.3)", "h = self.drop(h)"),
    ("self.drop2 = nn.Dropout(0.3).eval()", "h = self.drop2(h)"),
    ('self.register_buffer("a", torch.rand({h}))', "h = h + self.a"),
    ('self.register_buffer("b", torch.rand({h}), persistent=False)', "h = h + self.b"),
    ('self.register_buffer("seen", torch.zeros(()))',
     "self.seen += float(self.training); h = h * (1 + 0.01 * self.seen)"),
    ("self.count = 0", "self.count += self.training; h = h * (1 + 0.01 * self.count)"),
    ("self.mix = torch.randn({h}, {h}) / 2", "h = h @ self.mix"),
    ("self.hidden = [nn.Linear({h}, {h})]", "h = self.hidden[0](h).tanh()"),
    ("self.unused = nn.Linear({h}, 2)", "pass"),
    ("self.first.requires_grad_(False)", "pass"),
    ("self.last.weight.requires_grad_(False)", "pass"),
    ("self.again = nn.Linear({h}, {h})", "h = self.again(self.again(h).tanh())"),
    ("self.one = nn.Linear({h}, {h}); self.two = nn.Linear({h}, {h}); "
     "self.two.weight = self.one.weight", "h = self.two(self.one(h).tanh())"),
    ("self.length = nn.utils.parametrizations.weight_norm(nn.Linear({h}, {h}))",
     "h = self.length(h)"),
    ("self.gain = nn.Parameter(torch.ones(()))", "h = h * self.gain"),
    ("self.some = nn.ParameterList([torch.rand({h}), torch.rand(1)])",
     "h = h * self.some[0] + self.some[1]"),
    ("self.seen_last = None", "self.seen_last = h.detach()"),
    ("pass", "h = h + h.tanh()"),
    ("pass", "h = h.relu()"),
    ("pass", "h = F.gelu(h)"),
]  # fmt: skip
WRAPS = [  # what forward returns, and where the loss finds the outputs in it
    ("{}", "outputs"),
    ("{}", "outputs"),
    ("{}, h", "outputs[0]"),
    ("[{}, x]", "outputs[0]"),
    ('{{"out": {}, "n": len(x)}}', 'outputs["out"]'),
]

# What is wrong with a task, and refused: other values of its file.
FAULTS: list[dict[str, Any]] = [
    {"loss": "len(y) * ({loss})"},
    {"loss": "({loss}) + float('inf')"},
    {"loss": "0 * ({loss})"},
    {"before": "ONE = Net()\n", "make_net": "lambda: ONE"},
    {"before": "CALLS = []\n", "data": "split(CALLS.append(1) or len(CALLS), x, y, held_out=9)"},
    {"make_net": "Net()"},
    {"epochs": 0},
    {"batch_size": 8.0},
]
BAD_LABEL = {"before": "y[0] = 9\n"}  # of classes

# ---------------------------------------------------------------- what an optimizer is made of

TORCH: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}), ("SGD", {"momentum": 0.9}), ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("SGD", {"weight_decay": 0.1}), ("Adam", {}), ("Adam", {"amsgrad": True}), ("AdamW", {}),
    ("Adam", {"weight_decay": 0.1}), ("Adagrad", {}), ("RMSprop", {}), ("NAdam", {}),
    ("RMSprop", {"centered": True}), ("Adadelta", {}), ("Adamax", {}), ("RAdam", {}), ("ASGD", {}),
    ("Adafactor", {}), ("LBFGS", {"max_iter": 2}),
]  # fmt: skip
SCHEDULES = {
    "StepLR(step_size=1)": lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=1),
    "ExponentialLR(gamma=0.5)": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, gamma=0.5),
    "CosineAnnealingLR(T_max=3)": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=3),
}
INITS = {  # the constructor's body, and where the rate is afterwards
    'super().__init__(params, {"lr": lr})': 'group["lr"]',
    'super().__init__(params, {"lr": lr}); self.lr = lr': "self.lr",
    "super().__init__(params, {}); self.lr = lr": "self.lr",
    'params = list(params); super().__init__([{"params": params[:1]}, {"params": params[1:], '
    '"lr": lr / 2}] if len(params) > 1 else params, {"lr": lr})': 'group["lr"]',
}
STEPS = {  # its parameters, how it begins and ends; and whether it has to be given a closure
    (", closure", "loss = closure()", "return loss"): True,
    (", closure=None", "loss = closure() if closure else None", "return loss"): True,
    (", closure=None", "loss = closure() if closure else None", "return None"): True,
    (", closure=None", "loss = closure(); closure()", "return loss"): True,
    (", closure=None", "pass", "return None"): False,
    ("", "pass", "pass"): False,
}
MOVES = [
    "p.data -= {lr} * p.grad",
    "p.data = p.data - {lr} * p.grad",
    "p.data -= {lr} * p.grad / (p.grad.norm() + 1e-3)",
    "p.data -= {lr} * p.grad.clamp(-0.1, 0.1)",
    "p.data -= {lr} * (p.grad + (0.1 * p.data if p.ndim > 1 else 0))",
    "v = self.state[p].setdefault('v', torch.zeros_like(p.data)); v += p.grad; "
    "p.data -= {lr} / 2 * v",
]
MINE = """

class Mine(torch.optim.Optimizer):
    def __init__(self, params, lr{default}):
        {init}

    def step(self{parameters}):{trouble}
        {begin}
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    {move}
        {end}
"""
TROUBLE = """
        self.count = getattr(self, "count", 0) + 1
        assert self.count != 3, "boom"
"""


@dataclass
class Example:
    """A small file, and what has to come of it."""

    number: int
    source: str = ""
    is_right: Any = None
    is_refused: bool = False
    optimizer: str = ""
    make: Callable = torch.optim.SGD  # of the file's objects and a rate: what takes parameters
    closure: bool = True
    schedule: str = ""
    seeds: int = 1

    def __str__(self) -> str:
        words = f"--optimizers '{self.optimizer}{self.schedule}' --lr {LR} --seeds {self.seeds}"
        return f"# {self.number}: --task b.mine {words}\n{self.source}"


def random_file(number: int, may_fail: bool) -> Example:
    """Return the small file of this number."""
    dice, made = random.Random(number), Example(number)
    write_task(made, dice)
    can_be_scheduled = write_optimizer(made, dice, may_fail)
    made.seeds = dice.choice([1, 1, 2, 5])
    if can_be_scheduled and dice.random() < 0.3:
        made.schedule = " + " + dice.choice(list(SCHEDULES))
    return made


def write_task(made: Example, dice: random.Random) -> None:
    loss, (x, start, n_features) = dice.choice(LOSSES), dice.choice(INPUTS)
    n, held_out, h = dice.randint(20, 60), dice.randint(10, 20), dice.choice([3, 5, 8])
    norm = [dice.choice(NORMS)] if dice.random() < 0.3 else []
    parts = norm + dice.sample(PARTS, dice.randint(0, 3))
    wrap, outputs = dice.choice(WRAPS)
    layers = [f"self.first = nn.Linear({n_features}, {h}, bias={not norm})",
              f"self.last = nn.Linear({h}, {loss.n_outputs})",
              *(layer.format(h=h) for layer, _ in parts)]  # fmt: skip
    forward = ["x = " + start, "h = self.first(x)", *(line for _, line in parts),
               f"out = self.last(h{dice.choice(['', '.tanh()'])})",
               f"return {wrap.format(loss.finish)}"]  # fmt: skip
    values: dict[str, Any] = {
        "number": made.number,
        "x": x.format(n=n + held_out),
        "y": loss.y,
        "data": dice.choice(DATA).format(k=held_out),
        "layers": "\n        ".join(layers),
        "forward": "\n        ".join(forward),
        "loss": loss.text.format(outputs),
        "before": "",
        "make_net": "lambda: Net().eval()" if dice.random() < 0.1 else "Net",
        "epochs": dice.randint(1, 3),
        # Or a mini-batch might be without any label.
        "batch_size": n if "-100" in loss.y else dice.choice([n, 7, 8, 16]),
    }
    batch_statistics = norm and (
        "track" in norm[0][0] or not ("eval" in norm[0][0] or "eval" in values["make_net"])
    )
    made.is_refused = bool(batch_statistics) and n % values["batch_size"] == 1
    if not made.is_refused and dice.random() < 0.1:
        has_classes = "F.cross" in loss.text or "F.nll" in loss.text
        fault = dice.choice([*FAULTS, BAD_LABEL] if has_classes else FAULTS)
        values |= {k: v.format(**values) if k == "loss" else v for k, v in fault.items()}
        made.is_refused = True
    made.source = FILE.format(**values)
    made.is_right = loss.is_right
    if outputs != "outputs" and loss.is_right:
        made.is_right = of_a_part(loss.is_right, 0 if "0" in outputs else "out")


def of_a_part(is_right: Any, key: Any) -> Maybe:
    """Return what holds for a part of the outputs: whether it is shown, depends."""
    inner = is_right.is_right if isinstance(is_right, Maybe) else is_right
    return Maybe(lambda outputs, y: inner(outputs[key], y))


def write_optimizer(made: Example, dice: random.Random, may_fail: bool = False) -> bool:
    """Choose an optimizer, which may fail at its third step; can a schedule move its rate?"""
    if dice.random() < 0.5:
        name, keywords = dice.choice(TORCH)
        made.optimizer = f"{name}({', '.join(f'{k}={v}' for k, v in keywords.items())})"
        made.make = lambda found, lr: lambda p: getattr(torch.optim, name)(p, lr=lr, **keywords)
        return True
    init, lr = dice.choice(list(INITS.items()))
    (parameters, begin, end), made.closure = dice.choice(list(STEPS.items()))
    default, move = dice.choice(["", "=0.01"]), dice.choice(MOVES).format(lr=lr)
    trouble = TROUBLE if may_fail and dice.random() < 0.1 else ""
    made.source += MINE.format(**locals())
    made.optimizer = "b.Mine"
    made.make = lambda found, lr: lambda p: found["Mine"](p, lr=lr)
    return lr != "self.lr"
