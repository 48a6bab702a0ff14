"""How an answer is checked: it is run, and its numbers are compared with torch's or a formula's.

If they differ, they are compared with the numbers of the usual mistakes, and then of the hundreds
that checks/ makes from the rule. So a mistake is named only if the answer has exactly its numbers.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any, TypeAlias

from lab.training.checks import check_task
from lab.training.matching import reordered
from lab.training.runs import Training

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from checks.maker import Maker
from checks.mistakes import named, told
from checks.same_steps import compare
from exercises.rules import Rule
from models import Net
from tasks import Task
from training import evaluate, train

STEPS, LR = 8, 0.1
LRS = [LR if step < 5 else LR / 4 for step in range(STEPS)]  # it falls, as in a schedule
STARTS = torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.5]], dtype=torch.float64)  # two parameters
GRADS = torch.randn(
    STEPS, *STARTS.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64
)


class WrongAnswer(Exception):  # noqa: N818 (a finding, not an error)
    """What is wrong with an answer: an English sentence, and the values to fill in."""

    def __init__(self, sentence: str, **values: object):
        super().__init__(sentence.format(**values))
        self.sentence, self.values = sentence, values


# ---------------------------------------------------------------- optimizers

GRADIENT_CHANGED = (
    "A step changes the gradient itself, which may still be needed: write `grad = grad + ...`, "
    "and not `grad += ...` or `grad.add_(...)`."
)
MOVED_NOTHING = (
    "No step moves anything: change the parameter in place, as `param -= ...` does and "
    "`param = param - ...` does not."
)
CLOSURE_FORGOTTEN = "`step` does not call the closure, which computes the gradients: call it first."
NO_CLOSURE = "`step` takes no closure: write `def step(self, closure=None)`, and call it first."
CLOSURE_WITHOUT_GRAD = (
    "The closure is called under torch.no_grad(), where it cannot compute gradients: call it under "
    "`with torch.enable_grad():`."
)
LOSS_NOT_RETURNED = "`step` has to return the loss that the closure returns."
NO_OPTIMIZER = "It has to be a class derived from optimizers.UpdateRule or torch.optim.Optimizer."
UPHILL = "The steps go uphill: a parameter has to move against its gradient, by `param -= ...`."
SHARED = (
    "All parameters share one memory: keep such values in `state`, of which each parameter has its "
    "own, and not in `self`."
)
COUNTED_FROM_0 = (
    "The first step is counted as 0: count it as 1. With 0, the correction divides by "
    "1 - beta**0, which is 0."
)
COUNT_SHARED = (
    "The count grows with every parameter: at one step it is the same for all, `state['step']`."
)
NAMED = "{mistake} The numbers are as if, in optimizers/, `{right}` were: `{wrong}`."
FIRST_DIFFERENCE = (
    "Step {step} is the first to differ: an element at {before:.5f}, with a gradient of {grad:.5f} "
    "and lr={lr:g}, has to move to {right:.5f}, but moves to {mine:.5f}."
)


def path_of_optimizer(make_optimizer: Callable[..., Any], lr: float = LR) -> Tensor:
    """Return two parameters after each step (steps, 2, 3). Raises WrongAnswer if it has none."""
    params = [torch.nn.Parameter(start.clone()) for start in STARTS]
    optimizer, loss, is_called = make_optimizer(params, lr=lr), torch.tensor(1.0), False
    path: list[Tensor] = []
    try:
        inspect.signature(optimizer.step).bind(None)
    except TypeError:
        raise WrongAnswer(NO_CLOSURE) from None

    def closure() -> Tensor:
        nonlocal is_called
        is_called = True
        if not torch.is_grad_enabled():
            raise WrongAnswer(CLOSURE_WITHOUT_GRAD)
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad.clone()
        return loss

    for grads, scheduled_lr in zip(GRADS, LRS, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = scheduled_lr / LR * lr
        optimizer.zero_grad()
        is_called = False
        returned = optimizer.step(closure)
        if not is_called:
            raise WrongAnswer(CLOSURE_FORGOTTEN)
        if returned is not loss:
            raise WrongAnswer(LOSS_NOT_RETURNED)
        for param, grad in zip(params, grads, strict=True):
            if param.grad is None or not torch.equal(param.grad, grad):
                raise WrongAnswer(GRADIENT_CHANGED)
        path.append(torch.stack([param.detach() for param in params]).clone())
    if torch.equal(path[-1], STARTS):
        raise WrongAnswer(MOVED_NOTHING)
    return torch.stack(path)


def path_of_rule(
    rule: Rule,
    sign: int = 1,
    first_count: int = 1,
    shared_memory: bool = False,
    counts_per_step: int = 1,
) -> Tensor:
    """Return the path by a rule (steps, 2, 3), or by a right rule that is used in a wrong way.

    The wrong ways: steps of the opposite sign, counting the first step as `first_count`, one memory
    for both parameters, counting `counts_per_step` times a step.
    """
    thetas, path = list(STARTS.clone()), []
    shared: dict[str, Any] = {}
    memories = [shared if shared_memory else {} for _ in thetas]
    for step, (grads, lr) in enumerate(zip(GRADS, LRS, strict=True)):
        for k, (memory, grad) in enumerate(zip(memories, grads, strict=True)):
            t = first_count + step * counts_per_step + k * (counts_per_step - 1)
            thetas[k] = thetas[k] - sign * rule(memory, grad, t, thetas[k], lr)
        path.append(torch.stack(thetas))
    return torch.stack(path)


def are_close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-6, atol=1e-9, equal_nan=True)


def check_optimizer(
    answer: Any,
    rule: Rule,
    mistakes: dict[str, Rule],
    lr: float = LR,
    like: Maker | None = None,
) -> None:
    """Raise WrongAnswer unless the class, at this learning rate, takes the steps of the rule.

    The mistake is one of this exercise, or one of the hundreds that `like` may have.
    """
    if not (isinstance(answer, type) and issubclass(answer, Optimizer)):
        raise WrongAnswer(NO_OPTIMIZER)
    mine, right = path_of_optimizer(answer, lr), path_of_rule(rule)
    if are_close(mine, right):
        return
    wrong_paths = {sentence: [path_of_rule(mistake)] for sentence, mistake in mistakes.items()}
    wrong_paths |= {
        UPHILL: [path_of_rule(rule, sign=-1)],
        SHARED: [
            path_of_rule(rule, shared_memory=True),
            path_of_rule(rule, shared_memory=True, counts_per_step=2),
        ],
        COUNTED_FROM_0: [path_of_rule(rule, first_count=0)],
        COUNT_SHARED: [path_of_rule(rule, counts_per_step=2)],
    }
    for sentence, paths in wrong_paths.items():
        if any(are_close(mine, path) for path in paths):
            raise WrongAnswer(sentence)
    if like:
        for mistake in told(named(compare(Maker(answer.__name__, answer), like))):
            words = mistake.sentence.format(**mistake.values)
            raise WrongAnswer(NAMED, mistake=words, right=mistake.right, wrong=mistake.wrong)
    step = next(k for k in range(STEPS) if not are_close(mine[k], right[k]))
    k = (mine[step] - right[step]).abs().nan_to_num(math.inf).argmax()
    before = STARTS if step == 0 else right[step - 1]
    raise WrongAnswer(
        FIRST_DIFFERENCE,
        step=step + 1,
        before=before.flatten()[k],
        grad=GRADS[step].flatten()[k],
        lr=LRS[step] / LR * lr,
        right=right[step].flatten()[k],
        mine=mine[step].flatten()[k],
    )


# ---------------------------------------------------------------- a number

LR_MISTAKES = {
    0.25: "0.25 is one over the curvature across the valley: there y is 0 after one step. How far "
    "can you go beyond it?",
    1.0: "At 1 it diverges, but also at lower rates. The slope of 2·y² is 4·y, and not 2·y.",
    5.0: "5 is one over the curvature along the valley. Across it, it diverges at far lower rates.",
    10.0: "At 10 it diverges along the valley, too. Across it, it does so at far lower rates.",
}
NO_NUMBER = "It has to be a number."
DIVERGES = (
    "At {lr:g} it diverges, but also at lower rates: after 50 steps y is {growth:.3g} times as "
    "large. Try the middle between a rate that diverges and one that does not."
)
CONVERGES = (
    "At {lr:g} it does not diverge: after 50 steps y is {growth:.3g} times as large. Try the "
    "middle between a rate that diverges and one that does not."
)
NOT_POSITIVE = "A learning rate is above 0, and finite."


def check_diverging_rate(answer: Any) -> None:
    """Raise WrongAnswer unless this is the lowest rate at which descent does not converge.

    That is 0.5: the valley is 0.1·x² + 2·y², so a step multiplies y by 1 - 4·lr.
    """
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        raise WrongAnswer(NO_NUMBER)
    if not 0 < answer < math.inf:
        raise WrongAnswer(NOT_POSITIVE)
    if math.isclose(answer, 0.5, rel_tol=0.021):
        return
    for value, sentence in LR_MISTAKES.items():
        if math.isclose(answer, value, rel_tol=0.01):
            raise WrongAnswer(sentence)
    growth = math.exp(min(700, 50 * math.log(abs(1 - 4 * answer) or 1e-300)))
    raise WrongAnswer(DIVERGES if growth > 1 else CONVERGES, lr=answer, growth=growth)


NO_LEVEL = "It has to be a number above 0, and finite."
LEVEL_MISTAKES = {
    10.0: "10 is one over the rate: there a step lands at the bottom of the valley. It may go as "
    "far again beyond it.",
    13.8: "13.8 is where it starts: training makes the loss sharper.",
    40.0: "40 would be the limit at half the rate.",
    38.0: "38 would be the limit with a momentum of 0.9.",
    380.0: "380 would be Adam's limit, and that of another sharpness.",
    5.0: "5 is half over the rate: the limit is four times that.",
    0.1: "0.1 is the rate: the limit is a curvature, in proportion to one over the rate.",
}
LEVEL_TOO_LOW = (
    "At {level:g} steps at a rate of 0.1 still shrink: each is {factor:.3g} times the one before."
)
LEVEL_TOO_HIGH = (
    "At {level:g} steps at a rate of 0.1 grow: each is {factor:.3g} times the one before, on the "
    "other side."
)


def check_level(answer: Any) -> None:
    """Raise WrongAnswer unless this is the sharpness at which SGD at a rate of 0.1 is stable: 20.

    Along the sharpest direction a step multiplies by 1 - lr·sharpness.
    """
    if isinstance(answer, bool) or not isinstance(answer, int | float) or not 0 < answer < math.inf:
        raise WrongAnswer(NO_LEVEL)
    if math.isclose(answer, 20, rel_tol=0.05):
        return
    for value, sentence in LEVEL_MISTAKES.items():
        if math.isclose(answer, value, rel_tol=0.01):
            raise WrongAnswer(sentence)
    sentence = LEVEL_TOO_HIGH if answer > 20 else LEVEL_TOO_LOW
    raise WrongAnswer(sentence, level=answer, factor=abs(1 - 0.1 * answer))


# ---------------------------------------------------------------- names

SEES_AXES = {  # whether turned axes change its losses: tests/test_rotation.py
    "SGD": False,
    "Momentum": False,
    "SGD(weight_decay=0.1)": False,
    "Adagrad": True,
    "RMSprop": True,
    "Adam": True,
    "Rprop": True,
}
NO_NAMES = "It has to be a list of names, as texts."
OTHER_NAME = "There is no {name!r} in the command: take its names."
SEES_THEM = (
    "{name} is missing: it treats each weight for itself, by that weight's own gradients, and "
    "these are others once the axes are turned."
)
SEES_NONE = (
    "{name} does not change: with θ = Qφ its step in φ is Qᵀ times the one in θ, so in θ it is the "
    "same."
)


def check_axes(answer: Any) -> None:
    """Raise WrongAnswer unless these are the names of the optimizers that depend on the axes."""
    if not isinstance(answer, list | tuple | set) or not all(isinstance(x, str) for x in answer):
        raise WrongAnswer(NO_NAMES)
    for name in answer:
        if name not in SEES_AXES:
            raise WrongAnswer(OTHER_NAME, name=name)
    for name, sees in SEES_AXES.items():
        if sees != (name in answer):
            raise WrongAnswer(SEES_THEM if sees else SEES_NONE, name=name)


# ---------------------------------------------------------------- a function

NO_FUNCTION = "It has to be a function of the parameters and max_norm."
PARAMETERS_CHANGED = "It changes the parameters: it has to change only their gradients."
ONCE_ONLY = (
    "It goes through the parameters twice, but `net.parameters()` can be gone through only once: "
    "make a list of them first."
)
WRONG_NORM = (
    "With max_norm 1, gradients of norm {norm:.4g} have to get the norm 1, and get {left:.4g}; "
    "those of norm {small:.4g} have to keep their norm, and get {small_left:.4g}."
)


def scaled_by(factor: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function that multiplies all gradients by one number, `factor(grads)`."""
    return lambda grads: grads * factor(grads)


CLIP_MISTAKES: dict[str, Callable[[Tensor], Tensor]] = {
    "The gradients stay as they are: change `param.grad` in place, or assign it.": lambda g: g,
    "Each parameter is clipped by its own norm: take that of all gradients together, or their "
    "direction changes.": lambda g: g / g.norm(dim=1, keepdim=True).clamp(min=1),
    "Each element is clipped by itself, which changes the direction: multiply all by one factor, "
    "max_norm / norm.": lambda g: g.clamp(-1, 1),
    "Short gradients are made longer: clip only where the norm is above max_norm.": (
        lambda g: g / g.norm()
    ),
    "The factor is upside down: it is max_norm / norm.": scaled_by(lambda g: g.norm().clamp(min=1)),
    "The root is missing: the norm is the root of the sum of squares.": scaled_by(
        lambda g: 1 / g.square().sum().clamp(min=1)
    ),
    "That is the largest element, and not the norm, the root of the sum of squares.": scaled_by(
        lambda g: 1 / g.abs().max().clamp(min=1)
    ),
    "That is the sum of |g|, and not the norm, the root of the sum of squares.": scaled_by(
        lambda g: 1 / g.abs().sum().clamp(min=1)
    ),
    "That is the root of the mean of squares: the norm is the root of their sum.": scaled_by(
        lambda g: 1 / g.square().mean().sqrt().clamp(min=1)
    ),
    "It clips where the norm is below max_norm, and not where it is above.": (
        lambda g: g / g.norm() if g.norm() < 1 else g
    ),
}


def check_clip(answer: Any) -> None:
    """Raise WrongAnswer unless it clips gradients as torch.nn.utils.clip_grad_norm_ does."""
    if not callable(answer):
        raise WrongAnswer(NO_FUNCTION)

    long, short = 5 * GRADS[0], 0.1 * GRADS[0]
    mine, right = clipped(answer, long, short), clipped(clip_grad_norm_, long, short)
    if torch.allclose(mine, right, rtol=1e-5):
        from_iterator = clipped(lambda params, norm: answer(iter(params), norm), long, short)
        if not torch.allclose(from_iterator, right, rtol=1e-5):
            raise WrongAnswer(ONCE_ONLY)
        return
    for sentence, mistake in CLIP_MISTAKES.items():
        if torch.allclose(mine, torch.stack([mistake(long), mistake(short)]), rtol=1e-5):
            raise WrongAnswer(sentence)
    raise WrongAnswer(
        WRONG_NORM,
        norm=long.norm(),
        left=mine[0].norm(),
        small=short.norm(),
        small_left=mine[1].norm(),
    )


def clipped(clip: Callable[..., Any], *gradients: Tensor) -> Tensor:
    """Return what `clip`, with a max_norm of 1, makes of the gradients (2, 3) of two parameters."""
    results = []
    for grads in gradients:
        params = [torch.nn.Parameter(start.clone()) for start in [*STARTS, STARTS[0]]]
        for param, grad in zip(params, grads, strict=False):  # a third parameter has none
            param.grad = grad.clone()
        clip(params, 1.0)
        if not torch.equal(torch.stack([param.detach() for param in params[:2]]), STARTS):
            raise WrongAnswer(PARAMETERS_CHANGED)
        for param in params[:2]:
            results.append(torch.zeros_like(param) if param.grad is None else param.grad)
    return torch.stack(results).reshape(len(gradients), *STARTS.shape)


# ---------------------------------------------------------------- a net's copy

NO_COPY = "It has to return a net: a `models.Net` with the same numbers of units."
OLD_NET_CHANGED = "It changes the old net: make a new one first, as `copy.deepcopy(net)` does."
SHARED_WEIGHTS = "The new net shares its weights with the old one: copy them, as `clone()` does."
OTHER_COPY = "The outputs stay the same, but unit k is not the old net's unit order[k]."
OTHER_FUNCTION = "The outputs are not the same: they differ by up to {error:.3g}."

ORDER, INVERSE = [3, 0, 4, 1, 2], [1, 3, 4, 0, 2]  # ORDER[INVERSE[k]] is k
Weights: TypeAlias = dict[str, Tensor]


def with_orders(rows: list[int], bias: list[int], columns: list[int]) -> Callable[..., Weights]:
    """Return a function that gives a net's weights these orders: right are three that are ORDER."""
    return lambda old: (
        old
        | {
            "hidden.weight": old["hidden.weight"][rows],
            "hidden.bias": old["hidden.bias"][bias],
            "predict.weight": old["predict.weight"][:, columns],
        }
    )


STAY = [0, 1, 2, 3, 4]
REORDER_MISTAKES: dict[str, Callable[[Weights], Weights]] = {
    "Nothing has moved: change the new net in place, as `param.copy_(...)` does.": (
        with_orders(STAY, STAY, STAY)
    ),
    "The hidden units' biases stay: each goes with its unit.": with_orders(ORDER, STAY, ORDER),
    "The columns of predict.weight stay: a unit's output is read where the unit is now.": (
        with_orders(ORDER, ORDER, STAY)
    ),
    "The rows of hidden.weight stay: each leads into one unit, and goes with it.": (
        with_orders(STAY, ORDER, ORDER)
    ),
    "Only the rows of hidden.weight move: the biases and the columns of predict.weight have to "
    "go with them.": with_orders(ORDER, STAY, STAY),
    "Only the columns of predict.weight move: what leads into the units has to go with them.": (
        with_orders(STAY, STAY, ORDER)
    ),
    "The columns of predict.weight go the other way: column k is the old column order[k], too.": (
        with_orders(ORDER, ORDER, INVERSE)
    ),
    "The biases go the other way: bias k is the old bias order[k], too.": (
        with_orders(ORDER, INVERSE, ORDER)
    ),
    "All go the other way: unit k of the new net is the old one's unit order[k], and not unit "
    "order[k] the old one's unit k.": with_orders(INVERSE, INVERSE, INVERSE),
    "The order is not used: the units come from the last to the first.": (
        with_orders(STAY[::-1], STAY[::-1], STAY[::-1])
    ),
}


def check_reorder(answer: Any) -> None:
    """Raise WrongAnswer unless it returns a net with the units of the old one in an order."""
    torch.manual_seed(4)
    net, x = Net(2, 5, 3), torch.randn(7, 2)
    old = {name: value.clone() for name, value in net.state_dict().items()}
    new = answer(net, list(ORDER))
    if any(not torch.equal(value, old[name]) for name, value in net.state_dict().items()):
        raise WrongAnswer(OLD_NET_CHANGED)
    mine = new.state_dict() if isinstance(new, Net) else {}
    if {k: v.shape for k, v in mine.items()} != {k: v.shape for k, v in old.items()}:
        raise WrongAnswer(NO_COPY)
    for sentence, mistake in REORDER_MISTAKES.items():
        if all(torch.equal(mine[name], value) for name, value in mistake(old).items()):
            raise WrongAnswer(sentence)
    pointers = {value.data_ptr() for value in net.state_dict().values()}
    if pointers & {value.data_ptr() for value in mine.values()}:
        raise WrongAnswer(SHARED_WEIGHTS)
    right = reordered(old, ["hidden", "predict"], [ORDER])
    if all(torch.equal(mine[name], value) for name, value in right.items()):
        return
    with torch.no_grad():
        error = (new(x) - net(x)).abs().max().item()
    raise WrongAnswer(OTHER_COPY) if error < 1e-5 else WrongAnswer(OTHER_FUNCTION, error=error)


# ---------------------------------------------------------------- a task

NO_TASK = "It has to be a Task of tasks.py."
NO_FIT = "The parts do not go together: {error}."
SEEN_BEFORE = (
    "{shared} of the {held_out} held-out inputs are also in the training data: held-out data have "
    "to be new to the net. `data.split` separates the two."
)
ONE_FOR_ALL = "make_data(0) and make_data(1) are the same: use the seed."
ANOTHER_EACH_TIME = (
    "make_data(0) is different each time: draw with a torch.Generator that has the seed."
)
NOT_LEARNED = (
    "Adam at lr=0.01 lowers the held-out loss only from {before:.4g} to {after:.4g}: is there "
    "something to learn, and are there enough epochs?"
)


def check_own_task(answer: Any) -> None:
    """Raise WrongAnswer unless this is a task that can be learned, with new data held out."""
    if not isinstance(answer, Task):
        raise WrongAnswer(NO_TASK)
    try:
        check_task(answer, 0)
    except ValueError as error:
        raise WrongAnswer(NO_FIT, error=error) from None
    (dataset, held_out), again, other = (answer.make_data(seed) for seed in (0, 0, 1))
    x = dataset.tensors[0]
    if not torch.equal(x, again[0].tensors[0]):
        raise WrongAnswer(ANOTHER_EACH_TIME)
    if torch.equal(x, other[0].tensors[0]) and torch.equal(dataset.tensors[1], other[0].tensors[1]):
        raise WrongAnswer(ONE_FOR_ALL)
    rows, others = (
        {tuple(row.flatten().tolist()) for row in data.tensors[0]} for data in (dataset, held_out)
    )
    if x.is_floating_point() and (shared := rows & others):
        raise WrongAnswer(SEEN_BEFORE, shared=len(shared), held_out=len(others))
    net = Training(0, dataset, held_out).make_net(answer)
    before = evaluate(net, held_out, answer.loss)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    loader = DataLoader(dataset, answer.batch_size, shuffle=True)
    list(train(net, optimizer, loader, answer.loss, answer.epochs))
    after = evaluate(net, held_out, answer.loss)
    if not after < 0.7 * before:
        raise WrongAnswer(NOT_LEARNED, before=before, after=after)
