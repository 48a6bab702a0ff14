"""How an answer is checked: it is run, and its numbers are held against torch's or a formula.

Where they differ, they are held against those of the usual mistakes, and then of the hundreds that
checks/ makes from the rule: so a mistake is named only if the numbers are its own.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

from lab.trainings import Training, check_task

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from checks.maker import Maker
from checks.mistakes import named, told
from checks.same_steps import compare
from exercises.rules import Rule
from tasks import Task
from training import evaluate, train

STEPS, LR = 8, 0.1
RATES = [LR if step < 5 else LR / 4 for step in range(STEPS)]  # it falls, as by a schedule
STARTS = torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.5]], dtype=torch.float64)  # two parameters
GRADS = torch.randn(
    STEPS, *STARTS.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64
)


class Wrong(Exception):  # noqa: N818 (a finding, not an error)
    """What is wrong with an answer: an English sentence, and the numbers that go into it."""

    def __init__(self, sentence: str, **numbers: Any):
        super().__init__(sentence.format(**numbers))
        self.sentence, self.numbers = sentence, numbers


# ---------------------------------------------------------------- optimizers

GRADIENT_CHANGED = (
    "A step changes the gradient itself, which others may still need: write `grad = grad + ...`, "
    "and not `grad += ...` or `grad.add_(...)`."
)
MOVED_NOTHING = (
    "No step moves anything: change the parameter in place, as `param -= ...` does and "
    "`param = param - ...` does not."
)
CLOSURE_FORGOTTEN = "`step` does not call the closure, which computes the gradients: call it first."
CLOSURE_WITHOUT_GRAD = (
    "The closure is called under torch.no_grad(), where it cannot compute gradients: call it under "
    "`with torch.enable_grad():`."
)
LOSS_NOT_RETURNED = "`step` has to return the loss that the closure returns."
NO_OPTIMIZER = "It has to be a class derived from optimizers.UpdateRule or torch.optim.Optimizer."
UPHILL = "The steps go uphill: a parameter moves against its gradient, by `param -= ...`."
SHARED = (
    "All parameters share one memory: keep what you remember in `state`, which is the parameter's "
    "own, and not in `self`."
)
COUNTED_FROM_0 = (
    "The first step is counted as 0: count it as 1. With 0, the correction divides by "
    "1 - beta**0, which is 0."
)
COUNT_SHARED = (
    "The count grows with every parameter: all of them have one number a step, `state['step']`."
)
NAMED = "{mistake} The numbers are as if, in optimizers/, `{right}` were: `{wrong}`."
FIRST_DIFFERENCE = (
    "Step {step} is the first to differ: an element at {before:.5f}, under a gradient of "
    "{grad:.5f} and at lr={lr:g}, has to go to {right:.5f}, and goes to {mine:.5f}."
)


def path_of(make_optimizer: Callable[..., Optimizer], lr: float = LR) -> Tensor:
    """Return two parameters (steps, 2, 3) after each step. Raises Wrong where it cannot go on."""
    params = [torch.nn.Parameter(start.clone()) for start in STARTS]
    optimizer, path, loss = make_optimizer(params, lr=lr), [], torch.tensor(1.0)

    def closure() -> Tensor:
        if not torch.is_grad_enabled():
            raise Wrong(CLOSURE_WITHOUT_GRAD)
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad.clone()
        return loss

    for grads, rate in zip(GRADS, RATES, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate / LR * lr
        optimizer.zero_grad()
        returned = optimizer.step(closure)
        if params[0].grad is None:
            raise Wrong(CLOSURE_FORGOTTEN)
        if returned is not loss:
            raise Wrong(LOSS_NOT_RETURNED)
        if any(not torch.equal(p.grad, grad) for p, grad in zip(params, grads, strict=True)):
            raise Wrong(GRADIENT_CHANGED)
        path.append(torch.stack([param.detach() for param in params]).clone())
    if torch.equal(path[-1], STARTS):
        raise Wrong(MOVED_NOTHING)
    return torch.stack(path)


def walk(rule: Rule, sign: int = 1, first: int = 1, shared: bool = False, often: int = 1) -> Tensor:
    """Return the path of a rule (steps, 2, 3), or of one mistaken in what surrounds it.

    The mistakes: steps of the other sign, the first step counted as `first`, one memory for all
    parameters, a count that grows `often` times a step.
    """
    thetas, path = list(STARTS.clone()), []
    memories = [{}] * len(thetas) if shared else [{} for _ in thetas]
    for step, (grads, lr) in enumerate(zip(GRADS, RATES, strict=True)):
        for k, (memory, grad) in enumerate(zip(memories, grads, strict=True)):
            t = first + step * often + k * (often - 1)
            thetas[k] = thetas[k] - sign * rule(memory, grad, t, thetas[k], lr)
        path.append(torch.stack(thetas))
    return torch.stack(path)


def same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-6, atol=1e-9, equal_nan=True)


def check_optimizer(
    answer: Any,
    rule: Rule,
    mistakes: dict[str, Rule],
    lr: float = LR,
    like: Maker | None = None,
) -> None:
    """Raise Wrong unless the class takes, at this learning rate, the steps of the rule.

    The mistake is one of this exercise, or one of the hundreds that `like` may have.
    """
    if not (isinstance(answer, type) and issubclass(answer, Optimizer)):
        raise Wrong(NO_OPTIMIZER)
    mine, right = path_of(answer, lr), walk(rule)
    if same(mine, right):
        return
    paths = {sentence: [walk(mistake)] for sentence, mistake in mistakes.items()}
    paths |= {
        UPHILL: [walk(rule, sign=-1)],
        SHARED: [walk(rule, shared=True), walk(rule, shared=True, often=2)],
        COUNTED_FROM_0: [walk(rule, first=0)],
        COUNT_SHARED: [walk(rule, often=2)],
    }
    for sentence, wrong in paths.items():
        if any(same(mine, path) for path in wrong):
            raise Wrong(sentence)
    if like:
        for mistake in told(named(compare(Maker(answer.__name__, answer), like))):
            words = mistake.sentence.format(**mistake.values)
            raise Wrong(NAMED, mistake=words, right=mistake.right, wrong=mistake.wrong)
    step = next(k for k in range(STEPS) if not same(mine[k], right[k]))
    k = (mine[step] - right[step]).abs().nan_to_num(math.inf).argmax()
    before = STARTS if step == 0 else right[step - 1]
    raise Wrong(
        FIRST_DIFFERENCE,
        step=step + 1,
        before=before.flatten()[k],
        grad=GRADS[step].flatten()[k],
        lr=RATES[step] / LR * lr,
        right=right[step].flatten()[k],
        mine=mine[step].flatten()[k],
    )


# ---------------------------------------------------------------- a number

RATE_MISTAKES = {
    0.25: "0.25 is one over the curvature across the valley: there y is 0 after one step. How far "
    "can you go beyond it?",
    1.0: "There it diverges, but it does at less, too. The slope of 2·y² is 4·y, and not 2·y.",
    5.0: "5 is one over the curvature along the valley. Across it, it diverges long before.",
    10.0: "At 10 it diverges along the valley, too. Across it, it does long before.",
}
NO_NUMBER = "It has to be a number."
DIVERGES = (
    "At {lr:g} it diverges, but it does at less, too: after 50 steps y is {growth:.3g} times as "
    "large. Try the middle between a rate that diverges and one that does not."
)
CONVERGES = (
    "At {lr:g} it does not diverge: after 50 steps y is {growth:.3g} times as large. Try the "
    "middle between a rate that diverges and one that does not."
)
NOT_POSITIVE = "A learning rate is above 0, and finite."


def check_diverging_rate(answer: Any) -> None:
    """Raise Wrong unless this is the rate from which on gradient descent leaves the valley.

    A step multiplies y by 1 - 4·lr, since the valley is 0.1·x² + 2·y².
    """
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        raise Wrong(NO_NUMBER)
    if not 0 < answer < math.inf:
        raise Wrong(NOT_POSITIVE)
    if math.isclose(answer, 0.5, rel_tol=0.021):
        return
    for value, sentence in RATE_MISTAKES.items():
        if math.isclose(answer, value, rel_tol=0.01):
            raise Wrong(sentence)
    growth = math.exp(min(700, 50 * math.log(abs(1 - 4 * answer) or 1e-300)))
    raise Wrong(DIVERGES if growth > 1 else CONVERGES, lr=answer, growth=growth)


# ---------------------------------------------------------------- a function

NO_FUNCTION = "It has to be a function of the parameters and max_norm."
PARAMETERS_CHANGED = "It changes the parameters: it is their gradients that are too long."
ONCE_ONLY = (
    "It goes through the parameters twice, but `net.parameters()` can be gone through only once: "
    "make a list of them first."
)
WRONG_NORM = (
    "For gradients of norm {norm:.4g}, max_norm 1 has to leave a norm of 1, and leaves {left:.4g}; "
    "for those of norm {small:.4g}, which have to stay as they are, it leaves {small_left:.4g}."
)


def all_by(factor: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return what multiplies all gradients by one factor of them."""
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
    "The factor is upside down: it is max_norm / norm.": all_by(lambda g: g.norm().clamp(min=1)),
    "The root is missing: the norm is the root of the sum of squares.": all_by(
        lambda g: 1 / g.square().sum().clamp(min=1)
    ),
    "That is the largest element, and not the norm, the root of the sum of squares.": all_by(
        lambda g: 1 / g.abs().max().clamp(min=1)
    ),
    "That is the sum of the sizes, and not the norm, the root of the sum of squares.": all_by(
        lambda g: 1 / g.abs().sum().clamp(min=1)
    ),
    "That is the root of the mean of squares: the norm is the root of their sum.": all_by(
        lambda g: 1 / g.square().mean().sqrt().clamp(min=1)
    ),
    "It clips where the norm is below max_norm, and not where it is above.": (
        lambda g: g / g.norm() if g.norm() < 1 else g
    ),
}


def check_clip(answer: Any) -> None:
    """Raise Wrong unless the function clips gradients as torch.nn.utils.clip_grad_norm_ does."""
    if not callable(answer):
        raise Wrong(NO_FUNCTION)

    def clipped(clip: Callable, given: Callable[[list], Iterable] = list) -> Tensor:
        """Return what a function leaves of long and of short gradients (2, 2, 3)."""
        left = []
        for scale in (5.0, 0.1):
            params = [torch.nn.Parameter(start.clone()) for start in [*STARTS, STARTS[0]]]
            for param, grad in zip(params, GRADS[0], strict=False):  # the last one has none
                param.grad = scale * grad
            clip(given(params), 1.0)
            if not torch.equal(torch.stack([param.detach() for param in params[:2]]), STARTS):
                raise Wrong(PARAMETERS_CHANGED)
            left.append(torch.stack([param.grad for param in params[:2]]))
        return torch.stack(left)

    mine, right = clipped(answer), clipped(clip_grad_norm_)
    given = torch.stack([5 * GRADS[0], 0.1 * GRADS[0]])
    if torch.allclose(mine, right, rtol=1e-5):
        if not torch.allclose(clipped(answer, iter), right, rtol=1e-5):
            raise Wrong(ONCE_ONLY)
        return
    for sentence, mistake in CLIP_MISTAKES.items():
        if torch.allclose(mine, torch.stack([mistake(grads) for grads in given]), rtol=1e-5):
            raise Wrong(sentence)
    (norm, small), (left, small_left) = ([g.norm() for g in both] for both in (given, mine))
    raise Wrong(WRONG_NORM, norm=norm, left=left, small=small, small_left=small_left)


# ---------------------------------------------------------------- a task

NO_TASK = "It has to be a Task of tasks.py."
NO_FIT = "The parts do not go together: {error}."
SEEN_BEFORE = (
    "{shared} of the {held_out} held-out inputs are trained on, too: what is held out has to be "
    "new to the net. `data.split` sees to that."
)
ONE_FOR_ALL = "make_data(0) and make_data(1) are the same: use the seed."
ANOTHER_EACH_TIME = (
    "make_data(0) is another each time: draw with a torch.Generator that has the seed."
)
NOT_LEARNED = (
    "Adam at lr=0.01 brings the held-out loss from {before:.4g} to {after:.4g} only: is there "
    "something to learn, and are the epochs enough?"
)


def check_own_task(answer: Any) -> None:
    """Raise Wrong unless this is a task that can be learned, and is judged on other data."""
    if not isinstance(answer, Task):
        raise Wrong(NO_TASK)
    try:
        check_task(answer, 0)
    except ValueError as error:
        raise Wrong(NO_FIT, error=error) from None
    (dataset, held_out), again, other = (answer.make_data(seed) for seed in (0, 0, 1))
    x = dataset.tensors[0]
    if not torch.equal(x, again[0].tensors[0]):
        raise Wrong(ANOTHER_EACH_TIME)
    if torch.equal(x, other[0].tensors[0]) and torch.equal(dataset.tensors[1], other[0].tensors[1]):
        raise Wrong(ONE_FOR_ALL)
    rows, others = (
        {tuple(row.flatten().tolist()) for row in data.tensors[0]} for data in (dataset, held_out)
    )
    if x.is_floating_point() and (shared := rows & others):
        raise Wrong(SEEN_BEFORE, shared=len(shared), held_out=len(others))
    net = Training(0, dataset, held_out).make_net(answer)
    before = evaluate(net, held_out, answer.loss)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    loader = DataLoader(dataset, answer.batch_size, shuffle=True)
    list(train(net, optimizer, loader, answer.loss, answer.epochs))
    after = evaluate(net, held_out, answer.loss)
    if not after < 0.7 * before:
        raise Wrong(NOT_LEARNED, before=before, after=after)
