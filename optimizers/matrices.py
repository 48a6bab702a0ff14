"""Optimizers that treat a matrix as one: by its rows and columns, or by its directions."""

import math

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optimizers.update_rule import UpdateRule


class Adafactor(UpdateRule):
    """Adam's second moment from one number a row and one a column, and steps as long as θ asks.

        1 - β2 = t^beta2_decay
        r ← β2·r + (1 - β2)·mean of g² over each row,    c likewise over each column
        v = r·c / mean of r                              (of a vector: v ← β2·v + (1 - β2)·g²)
        u = g / max(√v, eps1),    u ← u / max(1, rms(u)/d)
        s = max(eps2, rms(θ)) · min(lr, 1/√t)
        θ ← θ - lr·weight_decay·θ - s·u

    rms is the root of the mean square. eps is (eps1, eps2); eps1 None is the precision of the
    numbers. It answers Adam's memory, two numbers for each weight, which large nets cannot spare:
    an n × m matrix takes n + m. And lr says how large a step is beside the weights themselves.

    Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
    arXiv:1804.04235, 2018, in PyTorch's form.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ):
        if not beta2_decay <= 0:
            raise ValueError(f"Invalid beta2_decay value: {beta2_decay}")
        if not d >= 1:
            raise ValueError(f"Invalid d value: {d}")
        defaults = dict(lr=lr, beta2_decay=beta2_decay, eps=eps, d=d)
        defaults |= dict(weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, defaults)

    def decay(self, param, grad, group):
        return grad  # update does it, once it has measured θ

    def update(self, param, grad, state, group):
        step, lr, (eps1, eps2) = state["step"], float(group["lr"]), group["eps"]
        eps1 = torch.finfo(param.dtype).eps if eps1 is None else eps1
        beta2 = 1 - step ** group["beta2_decay"]
        length = max(eps2, rms(param)) * min(lr, 1 / math.sqrt(step))
        param *= 1 - lr * group["weight_decay"]

        def average(name: str, value: Tensor) -> Tensor:
            state[name] = beta2 * state.get(name, 0) + (1 - beta2) * value
            return state[name]

        if grad.ndim > 1:
            rows = average("rows", (grad**2).mean(-1, keepdim=True))
            columns = average("columns", (grad**2).mean(-2, keepdim=True))
            v = rows * columns / rows.mean(-2, keepdim=True).clamp(min=eps1)
        else:
            v = average("second_moment", grad**2)
        direction = grad / v.clamp(min=eps1**2).sqrt()
        param -= length * direction / max(1, rms(direction) / group["d"])


def rms(values: Tensor) -> float:
    """Return the root of the mean square."""
    return values.square().mean().sqrt().item()


class Muon(UpdateRule):
    """Momentum whose step, a matrix, is made to turn and stretch all directions alike.

        v ← momentum·v + (1 - momentum)·g
        u = (1 - momentum)·g + momentum·v               (without nesterov: u = v)
        θ ← θ - lr·weight_decay·θ - lr·scale·orthogonal(u)

    For u = U·S·Vᵀ, orthogonal(u) is about U·Vᵀ: see `orthogonalized`. The scale of an n × m matrix
    is √max(1, n/m) ("original", the default) or 0.2·√max(n, m) ("match_rms_adamw", so that AdamW's
    learning rates do). It answers a step ruled by the few directions in which a gradient is large:
    here those in which it is small count as much. It is for the hidden layers' matrices, and takes
    no others; let AdamW train biases and embeddings.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; Liu et al.,
    "Muon is Scalable for LLM Training", arXiv:2502.16982, 2025.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ):
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Invalid adjust_lr_fn value: {adjust_lr_fn}")
        defaults = dict(lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov)
        defaults |= dict(ns_coefficients=ns_coefficients, eps=eps, ns_steps=ns_steps)
        defaults |= dict(adjust_lr_fn=adjust_lr_fn, decoupled_weight_decay=True)
        super().__init__(params, defaults)
        for group in self.param_groups:
            for param in group["params"]:
                if param.ndim != 2:
                    raise ValueError(f"Muon takes matrices only, not shape {tuple(param.shape)}")

    def update(self, param, grad, state, group):
        momentum, (rows, columns) = group["momentum"], param.shape
        velocity = momentum * state.get("velocity", 0) + (1 - momentum) * grad
        state["velocity"] = velocity
        direction = velocity
        if group["nesterov"]:
            direction = (1 - momentum) * grad + momentum * velocity
        if group["adjust_lr_fn"] == "match_rms_adamw":
            scale = 0.2 * math.sqrt(max(rows, columns))
        else:
            scale = math.sqrt(max(1, rows / columns))
        direction = orthogonalized(
            direction, group["ns_coefficients"], group["ns_steps"], group["eps"]
        )
        param -= group["lr"] * scale * direction


def orthogonalized(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Return about U·Vᵀ for the matrix U·S·Vᵀ, by Newton and Schulz's iteration, in bfloat16.

        X ← a·X + (b·A + c·A²)·X    for A = X·Xᵀ

    Each step moves every singular value x of X to a·x + b·x³ + c·x⁵. Muon's coefficients lift small
    ones fast, and bring all from 0.003 on to between 0.7 and 1.2. ValueError if there are not
    three of them, or 100 steps and more.
    """
    if len(coefficients) != 3 or steps >= 100:
        raise ValueError("the iteration takes three coefficients and fewer than 100 steps")
    a, b, c = coefficients
    is_tall = matrix.shape[0] > matrix.shape[1]  # then it is cheaper lying down
    x = (matrix.T if is_tall else matrix).bfloat16()
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if is_tall else x).to(matrix.dtype)
