"""A quasi-Newton method: it goes by the curvature, and by how the loss falls along a line."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optimizers.update_rule import UpdateRule


class LBFGS(UpdateRule):
    """Newton's method, with a curvature learnt from how the gradient changed along past steps.

        s = θ - θ_before,  y = g - g_before         kept, the last history_size, where sᵀy > 0
        d = -H·g                                    H: the inverse Hessian that they tell of
        θ ← θ + t·d                                 t = lr, or as `strong_wolfe` finds it

    One `step` is up to max_iter of these, each with a new call of the closure, or with as many as
    the line search needs; it ends early after max_eval calls, where no element of the gradient is
    above tolerance_grad, or where θ or the loss has changed by less than tolerance_change. The very
    first t is lr / |g|₁ where that is smaller than lr. All parameters are one vector, and so one
    param group.

    It answers the one thing that all others share: they know the slope, and not how far it holds.
    A valley's curvature gives the direction and the length at once, and no lr has to be tuned. The
    price: gradients have to be those of one function, not of another mini-batch each time.

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
        defaults = dict(lr=lr, max_iter=max_iter, max_eval=max_eval, history_size=history_size)
        defaults |= dict(tolerance_grad=tolerance_grad, tolerance_change=tolerance_change)
        defaults |= dict(line_search_fn=line_search_fn)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if self.param_groups:
            raise ValueError("LBFGS takes one param group only")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """Take up to max_iter steps; return the loss from before the first of them.

        The closure clears the gradients, computes the loss, calls its backward and returns it.
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

        def at(t: float) -> Point:
            move(params, theta, direction, t)
            loss, grad = loss_and_gradient()
            return Point(t, float(loss), grad, grad @ direction)

        def calls_left() -> int:
            return group["max_eval"] - state["func_evals"] + calls_before

        first_loss, grad = loss_and_gradient()
        loss = float(first_loss)
        for number in range(1, max_iter + 1):
            if grad.abs().max() <= group["tolerance_grad"]:
                break
            theta = [param.clone() for param in params]
            direction = self._direction(grad, state, group["history_size"])
            t = float(group["lr"])
            if state["n_iter"] == 1:
                t *= min(1.0, 1 / grad.abs().sum())
            state["t"] = t
            start = Point(0.0, loss, grad, grad @ direction)
            if start.slope > -tolerance:
                break
            if group["line_search_fn"]:
                smallest = 1e-9 / direction.abs().max()  # as torch: tolerance_change is for steps
                end = strong_wolfe(at, start, t, calls_left(), smallest)
                move(params, theta, direction, end.t)
            elif number < max_iter:
                end = at(t)
            else:  # the next step calls the closure anyway
                move(params, theta, direction, t)
                break
            state["t"], loss, grad = end.t, end.loss, end.grad
            moved, change = (end.t * direction).abs().max(), abs(end.loss - start.loss)
            if calls_left() <= 0 or moved <= tolerance or change < tolerance:
                break
        return first_loss

    def _direction(self, grad: Tensor, state: dict[str, Any], history_size: int) -> Tensor:
        """Return the direction to go, once the last step and what it changed are in the history."""
        state["n_iter"] += 1
        history = state.setdefault("history", [])  # of s, y and 1/sᵀy, the oldest first
        if state["n_iter"] > 1:
            s, y = state["t"] * state["direction"], grad - state["grad"]
            if (product := s @ y) > 1e-10:
                history.append((s, y, 1 / product))
                if len(history) > history_size:
                    del history[0]
        state["grad"], state["direction"] = grad, -inverse_hessian_times(grad, history)
        return state["direction"]


def flat_gradient(params: list[Tensor]) -> Tensor:
    """Return all gradients as one vector, zeros where there is none."""
    grads = [torch.zeros_like(param) if param.grad is None else param.grad for param in params]
    return torch.cat([grad.to_dense().flatten() for grad in grads])


def move(params: list[Tensor], theta: list[Tensor], direction: Tensor, t: float | Tensor) -> None:
    """Move the parameters to θ + t·direction."""
    parts = direction.split([param.numel() for param in params])
    for param, start, part in zip(params, theta, parts, strict=True):
        param.copy_(start).add_(part.view_as(param), alpha=t)


def inverse_hessian_times(grad: Tensor, history: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Return H·grad for the inverse Hessian H that the pairs (s, y, 1/sᵀy) of the history tell of.

    It would take too much room to write H down: the recursion goes back through the pairs and forth
    again. Nocedal and Wright, "Numerical Optimization", 2006, algorithm 7.4.
    """
    q, alphas = grad.clone(), []
    for s, y, rho in reversed(history):
        alphas.append(rho * (s @ q))
        q.add_(y, alpha=-alphas[-1])
    if history:
        s, y, _ = history[-1]
        q *= (s @ y) / (y @ y)
    for (s, y, rho), alpha in zip(history, reversed(alphas), strict=True):
        q.add_(s, alpha=alpha - rho * (y @ q))
    return q


class Point(NamedTuple):
    """A point on a line: how far along it lies, in steps; the loss, its gradient and its slope."""

    t: float | Tensor
    loss: float
    grad: Tensor
    slope: Tensor


def strong_wolfe(
    at: Callable[[float], Point], start: Point, t: float, most: int, smallest: float
) -> Point:
    """Return a point along a line that is low enough and flat enough, t of the first try given.

        loss(t) <= loss(0) + c1·t·slope(0),    |slope(t)| <= c2·|slope(0)|

    First walk on, further each time, to a bracket: two points, between which there is one. Then
    take one between them again and again, so that the lower one stays in. It ends with the lower
    one after `most` tries, or where they are less than `smallest` apart.

    Nocedal and Wright, "Numerical Optimization", 2006, algorithms 3.5 and 3.6, with c1 and c2 for
    quasi-Newton methods.
    """
    c1, c2 = 1e-4, 0.9

    def is_too_high(point: Point) -> bool:
        return point.loss > start.loss + c1 * point.t * start.slope

    def is_flat(point: Point) -> bool:
        return abs(point.slope) <= -c2 * start.slope

    last, point, tries = start, at(t), 0
    while tries < most:
        if is_too_high(point) or (tries > 1 and point.loss >= last.loss):
            break
        if is_flat(point):
            return point
        if point.slope >= 0:
            break
        bounds = point.t + 0.01 * (point.t - last.t), 10 * point.t
        last, point, tries = point, at(lowest_of_cubic(last, point, bounds)), tries + 1
    else:
        last = start

    bracket, is_stuck = [last, point], False
    low = 0 if last.loss <= point.loss else 1
    while tries < most:
        left, right = sorted(point.t for point in bracket)
        if right - left < smallest:
            break
        t = lowest_of_cubic(*bracket, (left, right))
        # Too near an end, and a second time: a tenth of the bracket away from it.
        margin = 0.1 * (right - left)
        if min(right - t, t - left) < margin:
            if is_stuck or not left < t < right:
                t = right - margin if right - t < t - left else left + margin
                is_stuck = False
            else:
                is_stuck = True
        else:
            is_stuck = False
        point, tries = at(t), tries + 1
        if is_too_high(point) or point.loss >= bracket[low].loss:
            bracket[1 - low] = point
            low = 0 if bracket[0].loss <= bracket[1].loss else 1
            continue
        if is_flat(point):
            return point
        if point.slope * (bracket[1 - low].t - bracket[low].t) >= 0:
            bracket[1 - low] = bracket[low]
        bracket[low] = point
    return bracket[low]


def lowest_of_cubic(one: Point, other: Point, bounds: tuple[float, float]) -> float:
    """Return where the cubic with these two losses and slopes is lowest, within the bounds.

    Their middle where it has no minimum. Nocedal and Wright, "Numerical Optimization", 2006,
    equation 3.59.
    """
    (low, high), (a, b) = bounds, sorted((one, other), key=lambda point: point.t)
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1**2 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2
    d2 = square.sqrt()
    t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2))
    return min(max(t, low), high)
