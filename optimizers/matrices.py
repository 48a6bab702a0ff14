"""Optimizers that see a matrix as a whole: its rows and columns, or its singular directions."""

import math

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optimizers.update_rule import UpdateRule


class Adafactor(UpdateRule):
    """Adam with one second moment for each row and each column, and steps relative to θ's size.

        1 - β2 = t^beta2_decay
        r ← β2·r + (1 - β2)·mean of g² over each row,    c the same over each column
        v = r·c / mean of r                              (of a vector: v ← β2·v + (1 - β2)·g²)
        u = g / max(√v, eps1),    u ← u / max(1, rms(u)/d)
        s = max(eps2, rms(θ)) · min(lr, 1/√t)
        θ ← θ - lr·weight_decay·θ - s·u

    rms is the root mean square. eps is (eps1, eps2); an eps1 of None means the machine epsilon of
    θ's dtype. Fixes the memory that Adam needs, two numbers for each weight, which is too much for
    large nets: for an n × m matrix, Adafactor keeps n + m numbers. And lr is relative: it says how
    large a step is compared with the weights themselves.

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

    def apply_weight_decay(self, param, grad, group):
        return grad  # `update` applies it, after it has measured θ

    def update(self, param, grad, state, group):
        step, (eps1, eps2) = state["step"], group["eps"]
        lr = torch.as_tensor(group["lr"], dtype=param.dtype)
        eps1 = torch.finfo(param.dtype).eps if eps1 is None else eps1
        beta2 = 1 - step ** group["beta2_decay"]
        length = rms(param).clamp(min=eps2) * lr.clamp(max=1 / math.sqrt(step))
        param.copy_(param * (1 - group["lr"] * group["weight_decay"]))

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
        param -= length * direction / (rms(direction) / group["d"]).clamp(min=1)


def rms(values: Tensor) -> Tensor:
    """Return the root mean square."""
    return values.square().mean().sqrt()


class Muon(UpdateRule):
    """Momentum whose step, a matrix, is made orthogonal: equally long in all directions.

        v ← momentum·v + (1 - momentum)·g
        u = (1 - momentum)·g + momentum·v               (without nesterov: u = v)
        θ ← θ - lr·weight_decay·θ - lr·scale·orthogonalize(u)

    If u = U·S·Vᵀ is the singular value decomposition, orthogonalize(u) is about U·Vᵀ. adjust_lr_fn
    chooses the scale of an n × m matrix: √max(1, n/m) for "original", the default, or
    0.2·√max(n, m) for "match_rms_adamw", with which learning rates of AdamW can be used.

    Fixes steps that are dominated by the few directions in which the gradient is large: here those
    in which it is small count as much. Muon is for the matrices of hidden layers, and takes no
    parameters but matrices; let AdamW train biases and embeddings.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; Liu et al.,
    "Muon is Scalable for LLM Training", arXiv:2502.16982, 2025.
    """

    is_exact = False

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
        defaults = dict(lr=lr, ns_coefficients=ns_coefficients, eps=eps, ns_steps=ns_steps)
        defaults |= dict(momentum=momentum, nesterov=nesterov, adjust_lr_fn=adjust_lr_fn)
        defaults |= dict(weight_decay=weight_decay, decoupled_weight_decay=True)
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
        direction = orthogonalize(
            direction, group["ns_coefficients"], group["ns_steps"], group["eps"]
        )
        param -= group["lr"] * scale * direction


def orthogonalize(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Return about U·Vᵀ for the matrix U·S·Vᵀ, by the Newton-Schulz iteration, in bfloat16.

        X ← a·X + (b·A + c·A²)·X    for A = X·Xᵀ

    Each step changes every singular value x of X to a·x + b·x³ + c·x⁵. With Muon's coefficients
    small ones grow fast, and all from 0.003 on end between 0.7 and 1.2. Raises ValueError unless
    there are three coefficients and fewer than 100 steps.
    """
    if len(coefficients) != 3 or steps >= 100:
        raise ValueError("the iteration takes three coefficients and fewer than 100 steps")
    a, b, c = coefficients
    is_tall = matrix.shape[0] > matrix.shape[1]  # its transpose has the smaller X·Xᵀ
    x = rounded(matrix.T if is_tall else matrix)
    x = rounded(x / rounded(x.norm().clamp(min=eps)))
    for _ in range(steps):
        gram = rounded(x @ x.T)
        x = rounded(a * x + rounded(b * gram + c * (gram @ gram)) @ x)
    return (x.T if is_tall else x).to(matrix.dtype)


def rounded(values: Tensor) -> Tensor:
    """Return values that bfloat16 has, as float32."""
    return values.bfloat16().float()
