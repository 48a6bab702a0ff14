"""What every optimizer has to hold to: a list of checks, each with what to do where it fails."""

import copy
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab.outcome import as_exceptions

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from checks.finding import Wrong, failure
from checks.maker import (
    ALIKE,
    KINDS,
    Kind,
    Maker,
    kind_of,
    needs_closure,
    quietly,
    take_step,
    takes_closure,
    without_end,
)

STEPS = 16  # some rest for ten, to begin with
DIGITS = 1e-6  # a state that is kept in float32 is its own check's business


@dataclass(frozen=True)
class Subject:
    """The optimizer that is checked, and the kind of parameters it takes."""

    make: Maker
    kind: Kind

    def grads(self, params: list[Tensor], seed: int = 0) -> list[list[Tensor]]:
        """Return a gradient for each parameter at each step."""
        generator = torch.Generator().manual_seed(10 + seed)
        return [
            [torch.randn(p.shape, generator=generator).to(p.dtype) for p in params]
            for _ in range(STEPS)
        ]

    def step(self, optimizer: Optimizer, params: list[Tensor], grads: list[Tensor]) -> None:
        """Take a step with these gradients, however often the class calls the closure."""

        def closure() -> Tensor:
            for param, grad in zip(params, grads, strict=True):
                self.kind.give(param, grad)
            return torch.tensor(1.0, requires_grad=True)

        take_step(optimizer, closure)

    def path(
        self,
        params: list[Tensor] | None = None,
        grads: list[list[Tensor]] | None = None,
        before: Callable[[int, Optimizer], None] = lambda step, optimizer: None,
        groups: list[dict[str, Any]] | None = None,
        seed: int = 0,
        **keywords: Any,
    ) -> list[list[Tensor]]:
        """Return where each parameter is after each step. `before` is called before each."""
        torch.manual_seed(seed)
        params = params or self.kind.draw()
        optimizer = self.make(groups or params, **keywords)
        path = []
        for number, one in enumerate(grads or self.grads(params)):
            before(number, optimizer)
            self.step(optimizer, params, one)
            path.append([param.detach().clone() for param in params])
        return path


def flat(path: list[list[Tensor]]) -> Tensor:
    return torch.cat([tensor.flatten() for step in path for tensor in step])


def same(one: Tensor, other: Tensor, digits: float = DIGITS) -> bool:
    return torch.allclose(one, other, rtol=digits, atol=1e-3 * digits, equal_nan=True)


# ---------------------------------------------------------------- the checks

NOT_CHANGED = (
    "No step moves anything: change the parameter in place, as `param -= ...` does and "
    "`param = param - ...` does not."
)
NOT_FINITE = "A step makes a parameter nan or infinite, under ordinary gradients."


def moves(subject: Subject) -> None:
    path = subject.path()
    start = torch.cat([param.detach().flatten() for param in subject.kind.draw()])
    if not flat(path).isfinite().all():
        raise Wrong(NOT_FINITE)
    if torch.equal(torch.cat([tensor.flatten() for tensor in path[-1]]), start):
        raise Wrong(NOT_CHANGED)


UPHILL = "The steps go uphill, at every rate tried: subtract the gradient, by `param -= ...`."


def goes_downhill(subject: Subject) -> None:
    """On a parabola, for some rate, the loss falls."""
    rates: list[dict[str, float]] = [{}]
    if "lr" in subject.make.hyperparameters and "lr" not in subject.make.keywords:
        rates += [{"lr": lr} for lr in (1e-3, 1e-2, 1e-1, 1.0)]
    failed = None
    for keywords in rates:
        try:
            if _falls(subject, keywords):
                return
        except Exception as error:  # at a rate that is too high, perhaps
            failed = error
    raise failed or Wrong(UPHILL)


def _falls(subject: Subject, keywords: dict[str, float]) -> bool:
    params = subject.kind.draw()
    optimizer = subject.make(params, **keywords)

    def closure() -> Tensor:
        for param in params:
            subject.kind.give(param, param.detach())
        return torch.stack([(param**2).sum() for param in params]).sum() / 2

    first = closure().item()
    for _ in range(4 * STEPS):
        take_step(optimizer, closure)
    return closure().item() < first


NO_CLOSURE = "`step` takes no closure: write `def step(self, closure=None)`."
CLOSURE_FORGOTTEN = "`step` does not call the closure, which computes the gradients: call it first."
CLOSURE_WITHOUT_GRAD = (
    "The closure is called under torch.no_grad(), where it cannot compute gradients: call it under "
    "`with torch.enable_grad():`."
)
LOSS_NOT_RETURNED = "`step` has to return the loss that the closure returns."


def calls_the_closure(subject: Subject) -> None:
    params = subject.kind.draw()
    optimizer = subject.make(params)
    if not takes_closure(optimizer):
        raise Wrong(NO_CLOSURE)
    loss, calls, with_grad = torch.tensor(1.25), 0, True

    def closure() -> Any:
        nonlocal calls, with_grad
        calls += 1
        with_grad &= torch.is_grad_enabled()
        for param in params:
            subject.kind.give(param, torch.ones_like(param))
        return loss.clone().requires_grad_() if calls > 1 else loss

    returned = optimizer.step(closure)
    if not calls:
        raise Wrong(CLOSURE_FORGOTTEN)
    if not with_grad:
        raise Wrong(CLOSURE_WITHOUT_GRAD)
    if returned is None or abs(float(returned) - loss.item()) > 1e-12:
        raise Wrong(LOSS_NOT_RETURNED)


CLOSURE_NEEDED = (
    "`step` needs a closure, and calls it once only: a loop that calls `optimizer.step()` cannot "
    "use it. Write `def step(self, closure=None)`."
)
NEEDS_CLOSURE = "`step` needs a closure, which it calls again and again"


def needs_no_closure(subject: Subject) -> str | None:
    params = subject.kind.draw()
    optimizer = subject.make(params)
    if not needs_closure(optimizer):
        for param in params:
            subject.kind.give(param, torch.ones_like(param))
        optimizer.step()
        return None
    calls = 0

    def closure() -> Any:
        nonlocal calls
        calls += 1
        for param in params:
            subject.kind.give(param, 2 * param.detach())
        return torch.stack([(param**2).sum() for param in params]).sum()

    optimizer.step(without_end(closure))
    if calls < 2:
        raise Wrong(CLOSURE_NEEDED)
    return NEEDS_CLOSURE


GRADIENT_CHANGED = (
    "A step changes the gradient itself, which others may still need: write `grad = grad + ...`, "
    "and not `grad += ...` or `grad.add_(...)`."
)


def leaves_gradients(subject: Subject) -> None:
    params = subject.kind.draw()
    optimizer = subject.make(params)
    for grads in subject.grads(params)[:3]:
        subject.step(optimizer, params, grads)
        if needs_closure(optimizer):  # it may have called it anywhere
            continue
        for param, grad in zip(params, grads, strict=True):
            if param.grad is None or not same(_dense(param.grad), grad, 1e-12):
                raise Wrong(GRADIENT_CHANGED)


def _dense(grad: Tensor) -> Tensor:
    return grad.to_dense() if grad.is_sparse else grad


ABSENT_MOVED = "A parameter without a gradient moves: skip those whose `grad` is None."
SKIP = "Skip those whose `grad` is None."
ABSENT = "with a parameter whose gradient is None"


def skips_the_absent(subject: Subject) -> None:
    params = subject.kind.draw()
    optimizer = subject.make(params)
    for grads in subject.grads(params)[:3]:
        optimizer.zero_grad()
        start = params[-1].detach().clone()

        def closure() -> Tensor:
            for param, grad in zip(params[:-1], grads[:-1], strict=True):
                subject.kind.give(param, grad)
            return torch.tensor(1.0, requires_grad=True)

        take_step(optimizer, closure)
        if not torch.equal(params[-1], start):
            raise Wrong(ABSENT_MOVED)


ZERO = (
    "A gradient of 0 makes a parameter nan, where it is divided by its own size: add eps to the "
    "denominator."
)


def bears_zeros(subject: Subject) -> None:
    params = subject.kind.draw()
    zeros = [[torch.zeros_like(param) for param in params]] * 2
    if not flat(subject.path(params, zeros + subject.grads(params))).isfinite().all():
        raise Wrong(ZERO)


ONE_RATE = (
    "The second param group does not get its own lr: read `group['lr']`, and not what the "
    "constructor was given."
)
REFUSES_GROUPS = "refuses param groups"
REFUSES_IT = "refuses it"


def has_groups(subject: Subject) -> str | None:
    """Another lr in the second group moves its parameters otherwise."""

    def path(*lrs: float) -> list[Tensor]:
        params = subject.kind.draw()
        half = len(params) // 2
        groups = [{"params": params[:half], "lr": lrs[0]}, {"params": params[half:], "lr": lrs[1]}]
        return [torch.stack([t.norm() for t in step[half:]]) for step in subject.path(
            params, groups=groups)]  # fmt: skip

    lr = _lr(subject)
    if lr is None:
        return None
    try:
        subject.make([{"params": [param]} for param in subject.kind.draw()])
    except (ValueError, NotImplementedError):
        return REFUSES_GROUPS
    if torch.equal(path(lr, lr)[-1], path(lr, lr / 4)[-1]):
        raise Wrong(ONE_RATE)
    return None


def _lr(subject: Subject) -> float | None:
    """Return the rate of the first param group, None where there is none."""
    groups = subject.make(subject.kind.draw()).param_groups
    return float(groups[0]["lr"]) if "lr" in groups[0] else None


NOT_ADDED = "Parameters added later, by `add_param_group`, do not move: go through param_groups."


def takes_a_late_group(subject: Subject) -> str | None:
    params = subject.kind.draw()
    optimizer = subject.make(params[:-1])
    grads = subject.grads(params)
    for one in grads[:3]:
        subject.step(optimizer, params[:-1], one[:-1])
    try:
        optimizer.add_param_group({"params": [params[-1]]})
    except (ValueError, NotImplementedError):
        return REFUSES_GROUPS
    start = params[-1].detach().clone()
    try:
        for one in grads[3:]:
            subject.step(optimizer, params, one)
    except (AssertionError, ValueError, NotImplementedError):
        return REFUSES_GROUPS
    if torch.equal(params[-1], start):
        raise Wrong(NOT_ADDED)
    return None


NO_SCHEDULE = (
    "A scheduler has no effect: it changes `group['lr']`, so read that at each step, and not what "
    "the constructor was given."
)
NO_RATE = "The param groups have no 'lr': put it into `defaults`, or no scheduler can change it."


def obeys_a_schedule(subject: Subject) -> None:
    if _lr(subject) is None:
        if "lr" in subject.make.hyperparameters:
            raise Wrong(NO_RATE)
        return

    def quarter(step: int, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] / 4 if step == 2 else group["lr"]

    if torch.equal(flat(subject.path()), flat(subject.path(before=quarter))):
        raise Wrong(NO_SCHEDULE)


STATE_LOST = (
    "After `load_state_dict` of its own `state_dict` it goes another way: keep all that it "
    "remembers in `self.state[param]`, or in a param group, and not in `self`."
)
NOT_PICKLED = "Its `state_dict` cannot be pickled, and so not saved: {error}"


def saves_its_state(subject: Subject) -> None:
    params = subject.kind.draw()
    optimizer = subject.make(params)
    torch.manual_seed(0)
    grads = subject.grads(params)
    for one in grads[:3]:
        subject.step(optimizer, params, one)
    try:
        saved = pickle.loads(pickle.dumps(optimizer.state_dict()))
    except Exception as error:
        raise Wrong(NOT_PICKLED, error=error) from None
    others: list[Tensor] = [torch.nn.Parameter(p.detach().clone()) for p in params]
    loaded = subject.make(others)
    loaded.load_state_dict(saved)
    random = torch.random.get_rng_state()
    for stepping, which in ((optimizer, params), (loaded, others)):
        torch.random.set_rng_state(random)
        for grad in grads[3:]:
            subject.step(stepping, which, grad)
    if not all(same(one, other) for one, other in zip(params, others, strict=True)):
        raise Wrong(STATE_LOST)


NOT_TWICE = (
    "Made again, from the same start and with the same gradients, it goes another way: what it "
    "remembers outlives it, or it draws random numbers that torch.manual_seed does not fix."
)


def is_deterministic(subject: Subject) -> None:
    if not same(flat(subject.path()), flat(subject.path()), 1e-12):
        raise Wrong(NOT_TWICE)


SHARED = (
    "The order of the parameters matters, so they share a memory: keep what you remember in "
    "`self.state[param]`, which is the parameter's own, and not in `self`."
)


RANDOM = "draws random numbers"


def shares_nothing(subject: Subject) -> str | None:
    """Parameters in the other order go the same way, to what sums in another order leave."""
    params = subject.kind.draw()
    grads = subject.grads(params)
    there = flat(subject.path(params, grads))
    if not same(there, flat(subject.path(grads=grads, seed=1))):
        return RANDOM
    back = subject.path(subject.kind.draw()[::-1], [one[::-1] for one in grads])
    if not same(there, flat([step[::-1] for step in back]), 1e-3):
        raise Wrong(SHARED)
    return None


PARAM_DTYPE = "A float64 parameter is {dtype} after a step."
STATE_DTYPE = (
    "The state of a float64 parameter is kept in {dtype}, as {name}: make it by "
    "`torch.zeros_like(param)`."
)


def keeps_float64(subject: Subject) -> None:
    with quietly(torch.float32):
        params = subject.kind.draw(dtype=torch.float64)
        optimizer = subject.make(params)
        for one in subject.grads(params)[:2]:
            subject.step(optimizer, params, one)
        for param in params:
            if param.dtype != torch.float64:
                raise Wrong(PARAM_DTYPE, dtype=str(param.dtype))
            for name, value in optimizer.state[param].items():
                is_like = isinstance(value, Tensor) and value.shape == param.shape and param.ndim
                if is_like and value.dtype in (torch.float32, torch.float16, torch.bfloat16):
                    raise Wrong(STATE_DTYPE, dtype=str(value.dtype), name=name)


EMPTY = "with a parameter without elements"
NO_ELEMENTS = "Skip those without elements."
EMPTY_SPOILS = "Beside a parameter without elements, the others go another way."


def bears_the_empty(subject: Subject) -> None:
    params = subject.kind.draw()
    grads = subject.grads(params)
    alone = subject.path(params, grads)
    shape = (0, 2) if subject.kind is KINDS[1] else (0,)
    more = [*subject.kind.draw(), torch.nn.Parameter(torch.zeros(shape))]
    beside = subject.path(more, [[*one, torch.zeros(shape)] for one in grads])
    if not same(flat(alone), flat([step[:-1] for step in beside])):
        raise Wrong(EMPTY_SPOILS)


ALIASED = (
    "After `zero_grad(set_to_none=False)` it goes another way: it remembers the gradient itself, "
    "which is then filled with 0. Remember `grad.clone()`."
)


def keeps_no_gradient(subject: Subject) -> None:
    """Gradients that stay in one tensor, filled with 0 between the steps, change nothing."""
    paths = []
    for is_kept in (True, False):
        params = subject.kind.draw()
        torch.manual_seed(0)
        optimizer = subject.make(params)
        path = []
        for grads in subject.grads(params):
            optimizer.zero_grad(set_to_none=not is_kept)

            def closure() -> Tensor:
                for param, grad in zip(params, grads, strict=True):
                    if is_kept and param.grad is not None and not subject.kind.sparse:
                        param.grad.copy_(grad)
                    else:
                        subject.kind.give(param, grad)
                return torch.tensor(1.0, requires_grad=True)

            take_step(optimizer, closure)
            path.append([param.detach().clone() for param in params])
        paths.append(flat(path))
    if not same(paths[0], paths[1]):
        raise Wrong(ALIASED)


NOT_MAXIMIZED = (
    "With maximize=True, it does not go as it does without, under gradients of the other sign."
)


def maximizes(subject: Subject) -> str | None:
    if "maximize" not in subject.make.hyperparameters:
        return None
    params = subject.kind.draw()
    grads = subject.grads(params)
    right = subject.path(params, [[-grad for grad in one] for one in grads])
    try:
        mine = subject.path(grads=grads, maximize=True)
    except (ValueError, NotImplementedError, RuntimeError):
        return REFUSES_IT
    if not same(flat(mine), flat(right)):
        raise Wrong(NOT_MAXIMIZED)
    return None


NOT_DIFFERENTIABLE = (
    "With differentiable=True, the parameter after a step does not depend on the one before, for "
    "autograd: refuse it, or go without in-place changes under no_grad."
)


def differentiates(subject: Subject) -> str | None:
    if "differentiable" not in subject.make.hyperparameters:
        return None
    starts = subject.kind.draw()
    params = [start.clone() for start in starts]
    try:
        optimizer = subject.make(params, differentiable=True)
        subject.step(optimizer, params, subject.grads(params)[0])
    except (ValueError, NotImplementedError, RuntimeError):
        return REFUSES_IT
    total = sum(param.sum() for param in params)
    if not (isinstance(total, Tensor) and total.requires_grad):
        raise Wrong(NOT_DIFFERENTIABLE)
    if not all(grad.isfinite().all() for grad in torch.autograd.grad(total, starts)):
        raise Wrong(NOT_DIFFERENTIABLE)
    return None


NEGATIVE = "It takes lr=-1 without an error: `raise ValueError` where lr is below 0."


def refuses_nonsense(subject: Subject) -> None:
    if "lr" not in subject.make.hyperparameters:
        return
    try:
        subject.make(subject.kind.draw(), lr=-1.0)
    except Exception:
        return
    raise Wrong(NEGATIVE)


@dataclass(frozen=True)
class Check:
    """What has to hold, in words; what raises Wrong where it does not, or returns a remark.

    `doing` and `cure` say what was done, and what helps, where it fails with an error of its own.
    """

    words: str
    run: Callable[[Subject], str | None]
    doing: str = ""
    cure: str = ""


CHECKS = [
    Check("a step moves parameters", moves),
    Check("steps go downhill", goes_downhill, "going down a parabola"),
    Check("`step(closure)` calls it and returns its loss", calls_the_closure, "given a closure"),
    Check("`step()` needs no closure", needs_no_closure, "without a closure"),
    Check("gradients are not changed", leaves_gradients),
    Check("parameters without a gradient are left alone", skips_the_absent, ABSENT, SKIP),
    Check("a gradient of 0 does no harm", bears_zeros, "under a gradient of 0"),
    Check("param groups have their own lr", has_groups, "given two param groups"),
    Check("a group may be added later", takes_a_late_group, "given a param group later"),
    Check("schedulers take effect", obeys_a_schedule, "where lr changes"),
    Check("`state_dict` is saved and loaded", saves_its_state, "given a saved state_dict"),
    Check("the same again gives the same", is_deterministic),
    Check("parameters share no memory", shares_nothing, "given them in another order"),
    Check("float64 stays float64", keeps_float64, "given float64"),
    Check("empty parameters do no harm", bears_the_empty, EMPTY, NO_ELEMENTS),
    Check("`zero_grad(set_to_none=False)` changes nothing", keeps_no_gradient),
    Check("`maximize` is right, or refused", maximizes, "given maximize=True"),
    Check("`differentiable` is right, or refused", differentiates, "given differentiable=True"),
    Check("a negative lr is refused", refuses_nonsense),
]


@dataclass(frozen=True)
class Result:
    """How a check went: its words, what is wrong, or what is to be remarked."""

    words: str
    finding: Wrong | None = None
    remark: str = ""


def run_all(subject: Subject) -> list[Result]:
    """Run the checks in turn; where even the first fails, it alone says why."""
    first = run_check(CHECKS[0], subject)
    others = [] if first.finding else CHECKS[1:]
    return [first, *(run_check(check, subject) for check in others)]


def run_check(check: Check, subject: Subject) -> Result:
    """Run a check; a class that fails with an error of its own is wrong, too."""
    with quietly():
        try:
            with as_exceptions():
                return Result(check.words, remark=check.run(subject) or "")
        except Wrong as finding:
            return Result(check.words, finding)
        except Exception as error:  # their code may fail in any way
            return Result(check.words, failure(error, check.doing, check.cure))


def subject_of(make: Maker) -> Subject:
    """Return what is to be checked. Raises whatever the class raises where it cannot step."""
    make = make.with_a_rate()
    with quietly():
        try:
            return Subject(make, kind_of(make))
        except Exception:
            make(ALIKE.draw())  # it is the first step that fails, or else this raises
            return Subject(make, ALIKE)


# ---------------------------------------------------------------- what it couples and costs


@dataclass(frozen=True)
class Profile:
    """What an optimizer couples, and what it costs: numbers beside the parameter, Adam's times."""

    elements: bool
    parameters: bool
    memory: float
    time: float


def profile(subject: Subject) -> Profile:
    with quietly():
        return Profile(
            couples_elements(subject),
            couples_parameters(subject),
            memory(subject),
            time_beside_adam(subject),
        )


def couples_elements(subject: Subject) -> bool:
    """Whether an element goes another way if another of its parameter has another gradient."""
    params = subject.kind.draw()
    grads = subject.grads(params)
    other = copy.deepcopy(grads)
    for one in other:
        for grad in one:
            if grad.numel() > 1:
                grad.view(-1)[0] = 3 * grad.view(-1)[0] + 1
    paths = zip(subject.path(params, grads)[-1], subject.path(grads=other)[-1], strict=True)
    return any(not same(one.flatten()[1:], two.flatten()[1:]) for one, two in paths)


def couples_parameters(subject: Subject) -> bool:
    """Whether a parameter goes another way if another has another gradient."""
    params = subject.kind.draw()
    grads = subject.grads(params)
    other = [[3 * one[0] + 1, *one[1:]] for one in grads]
    paths = subject.path(params, grads), subject.path(grads=other)
    one, two = (flat([step[1:] for step in path]) for path in paths)
    return not same(one, two)


def memory(subject: Subject) -> float:
    """Return how many numbers it keeps for each of a parameter's, in bytes."""
    shapes = dict.fromkeys(subject.kind.shapes, (64, 64))
    large = Subject(subject.make, Kind(shapes, subject.kind.sparse))
    params = large.kind.draw()
    optimizer = subject.make(params)
    for grads in large.grads(params)[:2]:
        large.step(optimizer, params, grads)
    kept = {
        id(value): value.nbytes for state in optimizer.state.values() for value in _tensors(state)
    }
    return sum(kept.values()) / sum(param.nbytes for param in params)


def _tensors(value: Any) -> list[Tensor]:
    """Return all tensors in dicts, lists and tuples."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    is_container = isinstance(value, dict | list | tuple)
    return [tensor for part in parts for tensor in _tensors(part)] if is_container else []


def time_beside_adam(subject: Subject, rounds: int = 15) -> float:
    """Return how long a step takes, as a multiple of torch's Adam's: the median of rounds."""
    pairs = []
    for make in (subject.make, Adam):
        params = subject.kind.draw()
        kind = subject.kind if make is subject.make else Kind(subject.kind.shapes)
        pairs.append((Subject(subject.make, kind), make(params), params, subject.grads(params)))
    ratios = []
    for _ in range(rounds):
        seconds = []
        for one, optimizer, params, grads in pairs:
            start = time.process_time()
            for grad in grads:
                one.step(optimizer, params, grad)
            seconds.append(time.process_time() - start)
        ratios.append(seconds[0] / seconds[1])
    return sorted(ratios)[rounds // 2]
