"""A quasi-Newton method: it uses the curvature, and how the loss changes along a line."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optimizers.update_rule import Group, State, UpdateRule

Number = float | Tensor  # a Tensor of one element


class LBFGS(UpdateRule):
    """Newton's method, with the curvature estimated from past steps and their gradients.

        s = θ - θ_before,  y = g - g_before         the last history_size pairs with sᵀy > 0
        d = -H·g                                    H: the inverse Hessian, estimated from the pairs
        θ ← θ + t·d                                 t = lr, or as `strong_wolfe` finds it

    One call of `step` moves θ up to max_iter times. For each move it calls the closure once, or as
    often as the line search needs. It stops early after max_eval calls, when no element of the
    gradient is above tolerance_grad, or when θ or the loss has changed by less than
    tolerance_change. The very first t is lr / |g|₁ if that is smaller than lr. All parameters form
    one vector, so there can be only one param group.

    Fixes what all others have in common: they know the slope, but not how far it stays the same.
    The curvature of a valley gives both the direction and the length of a step, so no lr has to be
    tuned. The price: all gradients have to be of the same function, and not of a new mini-batch
    each time.

    Liu and Nocedal, "On the limited memory BFGS method for large scale optimization", Mathematical
    Programming 45, 1989.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ):
        if line_search_fn not in (None, "strong_wolfe"):
            raise ValueError(f"Invalid line_search_fn value: {line_search_fn}")
        max_eval = max_iter * 5 // 4 if max_eval is None else max_eval
        defaults = dict(lr=lr, max_iter=max_iter, line_search_fn=line_search_fn)
        defaults |= dict(max_eval=max_eval, history_size=history_size)
        defaults |= dict(tolerance_grad=tolerance_grad, tolerance_change=tolerance_change)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: Group) -> None:
        if self.param_groups:
            raise ValueError("LBFGS takes one param group only")
        super().add_param_group(param_group)

    # The others can step without a closure. LBFGS cannot, and in torch.optim it cannot, either.
    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """Move the parameters up to max_iter times; return the loss from before the first move.

        The closure clears the gradients, computes the loss, calls its `backward()` and returns it.
        """
        (group,) = self.param_groups
        params, max_iter, tolerance = group["params"], group["max_iter"], group["tolerance_change"]
        state = self.state[params[0]]
        state.setdefault("n_iter", 0)
        calls_before = state.setdefault("func_evals", 0)

        def loss_and_gradient() -> tuple[Tensor, Tensor]:
            state["func_evals"] += 1
            with torch.enable_grad():
                loss = closure()
            return loss, flat_gradient(params)

        def at(t: Number) -> Point:
            move(params, theta, direction, t)
            loss, grad = loss_and_gradient()
            return Point(t, float(loss), grad, grad @ direction)

        def calls_left() -> int:
            return group["max_eval"] - state["func_evals"] + calls_before

        first_loss, grad = loss_and_gradient()
        loss = float(first_loss)
        for iteration in range(1, max_iter + 1):
            if grad.abs().max() <= group["tolerance_grad"]:
                break
            theta = [param.clone() for param in params]
            direction = self._direction(grad, state, group["history_size"])
            t: Number = float(group["lr"])
            if state["n_iter"] == 1 and (norm := grad.abs().sum()) > 1:
                t *= 1 / norm
            state["t"] = t
            start = Point(0.0, loss, grad, grad @ direction)
            if start.slope > -tolerance:
                break
            if group["line_search_fn"]:
                min_width = 1e-9 / direction.abs().max()  # 1e-9 as in torch.optim
                end = strong_wolfe(at, start, t, calls_left(), min_width)
                move(params, theta, direction, end.t)
            elif iteration < max_iter:
                end = at(t)
            else:  # the next call of `step` begins with the closure anyway
                move(params, theta, direction, t)
                break
            state["t"], loss, grad = end.t, end.loss, end.grad
            moved, change = (end.t * direction).abs().max(), abs(end.loss - start.loss)
            if calls_left() <= 0 or moved <= tolerance or change < tolerance:
                break
        return first_loss

    def _direction(self, grad: Tensor, state: State, history_size: int) -> Tensor:
        """Add the last move and its change of the gradient to the history; return -H·grad."""
        state["n_iter"] += 1
        history = state.setdefault("history", [])  # of (s, y, 1/sᵀy), the oldest first
        if state["n_iter"] > 1:
            s, y = state["t"] * state["direction"], grad - state["grad"]
            if (product := s @ y) > 1e-10:
                history.append((s, y, 1 / product))
                if len(history) > history_size:
                    del history[0]
        state["grad"], state["direction"] = grad, -inverse_hessian_times(grad, history)
        return state["direction"]


def flat_gradient(params: list[Tensor]) -> Tensor:
    """Return all gradients as one vector, with zeros for parameters that have none."""
    grads = [torch.zeros_like(param) if param.grad is None else param.grad for param in params]
    return torch.cat([grad.to_dense().flatten() for grad in grads])


def move(params: list[Tensor], theta: list[Tensor], direction: Tensor, t: Number) -> None:
    """Move the parameters to θ + t·direction."""
    parts = direction.split([param.numel() for param in params])
    for param, start, part in zip(params, theta, parts, strict=True):
        param.copy_(start).add_(part.view_as(param), alpha=float(t))


def inverse_hessian_times(grad: Tensor, history: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Return H·grad, where H is the inverse Hessian estimated from the history's (s, y, 1/sᵀy).

    H itself would need too much memory. This is the two-loop recursion, which goes through the
    history backwards, then forwards: Nocedal and Wright, "Numerical Optimization", 2006, alg. 7.4.
    """
    q, alphas = grad.clone(), []
    for s, y, rho in reversed(history):
        alphas.append(rho * (s @ q))
        q.add_(y, alpha=-float(alphas[-1]))
    if history:
        s, y, _ = history[-1]
        q *= (s @ y) / (y @ y)
    for (s, y, rho), alpha in zip(history, reversed(alphas), strict=True):
        q.add_(s, alpha=float(alpha - rho * (y @ q)))
    return q


class Point(NamedTuple):
    """A point on the line θ + t·direction, with the loss there, its gradient and its slope."""

    t: Number
    loss: float
    grad: Tensor
    slope: Tensor  # of the loss along the line


Line = Callable[[Number], Point]  # returns the point at a given t
C1, C2 = 1e-4, 0.9  # of Wolfe's conditions; Nocedal and Wright's choice for quasi-Newton methods


def is_too_high(point: Point, start: Point) -> bool:
    """Whether the point breaks Wolfe's first condition: loss(t) <= loss(0) + c1·t·slope(0)."""
    return bool(point.loss > start.loss + C1 * point.t * start.slope)


def is_flat(point: Point, start: Point) -> bool:
    """Whether the point keeps Wolfe's second condition: |slope(t)| <= c2·|slope(0)|."""
    return bool(abs(point.slope) <= -C2 * start.slope)


def strong_wolfe(at: Line, start: Point, t: Number, max_tries: int, min_width: Number) -> Point:
    """Return a point on a line that keeps both of Wolfe's conditions; t is the first one tried.

    Goes further and further along the line, until it has a bracket: two points with such a point
    between them. Then it makes the bracket smaller (`zoom`).

    Nocedal and Wright, "Numerical Optimization", 2006, algorithm 3.5.
    """
    last, point, tries = start, at(t), 0
    while tries < max_tries:
        if is_too_high(point, start) or (tries > 1 and point.loss >= last.loss):
            break
        if is_flat(point, start):
            return point
        if point.slope >= 0:
            break
        bounds = point.t + 0.01 * (point.t - last.t), 10 * point.t
        last, point, tries = point, at(minimum_of_cubic(last, point, bounds)), tries + 1
    else:
        last = start
    return zoom(at, start, [last, point], max_tries - tries, min_width)


def zoom(at: Line, start: Point, bracket: list[Point], max_tries: int, min_width: Number) -> Point:
    """Return a point between those of the bracket that keeps both of Wolfe's conditions.

    Each point tried becomes an end of the bracket; of the two ends, the one with the lower loss is
    kept. It is returned after `max_tries`, or when the bracket is narrower than `min_width`.

    Nocedal and Wright, "Numerical Optimization", 2006, algorithm 3.6.
    """
    low, was_near_end = int(not bracket[0].loss <= bracket[1].loss), False
    for _ in range(max_tries):
        left, right = sorted(point.t for point in bracket)
        if right - left < min_width:
            break
        t = minimum_of_cubic(bracket[0], bracket[1], (left, right))
        # If t is near an end for the second time, or beyond it, take a tenth of the width from it.
        margin = 0.1 * (right - left)
        is_near_end = bool(t - left < margin or right - t < margin)
        if is_near_end and (was_near_end or not left < t < right):
            t = right - margin if right - t < t - left else left + margin
            is_near_end = False
        was_near_end = is_near_end
        point = at(t)
        if is_too_high(point, start) or point.loss >= bracket[low].loss:
            bracket[1 - low] = point
            low = int(not bracket[0].loss <= bracket[1].loss)
            continue
        if is_flat(point, start):
            return point
        if point.slope * (bracket[1 - low].t - bracket[low].t) >= 0:
            bracket[1 - low] = bracket[low]
        bracket[low] = point
    return bracket[low]


def minimum_of_cubic(one: Point, other: Point, bounds: tuple[Number, Number]) -> Number:
    """Return where the cubic through two points, with their slopes, is lowest within the bounds.

    Returns the middle of the bounds if it has no minimum. Nocedal and Wright, "Numerical
    Optimization", 2006, equation 3.59.
    """
    (low, high), (a, b) = bounds, sorted((one, other), key=lambda point: point.t)
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1**2 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2
    d2 = square.sqrt()
    t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2))
    return min(max(t, low), high)
