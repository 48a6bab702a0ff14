"""SOAP: Adam in the axes of the gradients, for matrices and tensors of more dimensions."""

import math

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optimizers.update_rule import UpdateRule


class SOAP(UpdateRule):
    """Adam in other axes: those in which the gradients of a matrix vary independently.

        t = 1    L = (1 - β)·g·gᵀ,    R = (1 - β)·gᵀ·g,    no step
                 Q_L and Q_R have the eigenvectors of L and R as columns
        t > 1    m ← β1·m + (1 - β1)·g,    v ← β2·v + (1 - β2)·(Q_Lᵀ·g·Q_R)²
                 u = (Q_Lᵀ·m·Q_R) / (√v + eps) · √(1 - β2ᵗ⁻¹) / (1 - β1ᵗ⁻¹)
                 θ ← θ - lr·Q_L·u·Q_Rᵀ,    then θ ← θ - lr·weight_decay·θ
                 L ← β·L + (1 - β)·g·gᵀ,    R ← β·R + (1 - β)·gᵀ·g
                 each precondition_frequency steps, Q ← the orthonormal basis of L·Q, of R·Q (by QR)

    β is shampoo_beta, or β2 where that is below 0. A tensor of more dimensions has a basis for each
    of them. One without a basis is turned by nothing: vectors, unless precondition_1d is set, and
    dimensions longer than max_precond_dim. There SOAP is Adam, whose eps is added before the
    correction, and whose first step is missing.

    Fixes Adam's dependence on the axes: Adam measures each weight by itself, though gradients vary
    along directions that lie across many weights. Turning the axes first makes Adam's rates fit, as
    Shampoo does; SOAP needs new bases now and then only. What it costs: for an n × m matrix, twice
    n² + m² numbers beside Adam's 2·n·m, and some products of matrices.

    Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", arXiv:2409.11321, 2024. The
    paper has steps from t = 1 on, and no weight decay: both here are the authors' package's, whose
    merge_dims, normalize_grads, data_format and correct_bias are missing. It finds bases in
    float32, this in float64, and has 1e-12 of L's trace added to L: where eigenvalues are close or
    0, rounding errors would turn the bases.
    """

    is_exact = False

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        shampoo_beta: float = -1,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        precondition_frequency: int = 10,
        max_precond_dim: int = 10000,
        precondition_1d: bool = False,
        *,
        maximize: bool = False,
    ):
        if not shampoo_beta < 1:
            raise ValueError(f"Invalid shampoo_beta value: {shampoo_beta}")
        if not precondition_frequency >= 1:
            raise ValueError(f"Invalid precondition_frequency value: {precondition_frequency}")
        defaults = dict(lr=lr, betas=betas, shampoo_beta=shampoo_beta, eps=eps)
        defaults |= dict(weight_decay=weight_decay, maximize=maximize)
        defaults |= dict(precondition_frequency=precondition_frequency)
        defaults |= dict(max_precond_dim=max_precond_dim, precondition_1d=precondition_1d)
        super().__init__(params, defaults)

    def apply_weight_decay(self, param, grad, group):
        return grad  # `update` shrinks θ, after the step

    def update(self, param, grad, state, group):
        (beta1, beta2), lr, t = group["betas"], group["lr"], state["step"] - 1
        takes_basis = grad.ndim > 1 or group["precondition_1d"]
        lengths = enumerate(grad.shape) if takes_basis else []
        dims = [dim for dim, length in lengths if length <= group["max_precond_dim"]]
        if t > 0:
            bases = {dim: state[f"basis_{dim}"] for dim in dims}
            m = beta1 * state.get("first_moment", 0) + (1 - beta1) * grad
            v = beta2 * state.get("second_moment", 0) + (1 - beta2) * turned(grad, bases) ** 2
            state["first_moment"], state["second_moment"] = m, v
            correction = math.sqrt(1 - beta2**t) / (1 - beta1**t)
            direction = correction * turned(m, bases) / (v.sqrt() + group["eps"])
            param -= lr * turned(direction, {dim: basis.mT for dim, basis in bases.items()})
            param.copy_(param * (1 - lr * group["weight_decay"]))
        beta = group["shampoo_beta"] if group["shampoo_beta"] >= 0 else beta2
        for dim in dims:
            others = [k for k in range(grad.ndim) if k != dim]
            g = grad.double()
            products = torch.tensordot(g, g, dims=[others, others])  # g·gᵀ of a matrix
            moment = beta * state.get(f"products_{dim}", 0) + (1 - beta) * products
            state[f"products_{dim}"] = moment.to(grad.dtype)
            moment = state[f"products_{dim}"].double()
            if t == 0:
                basis = torch.linalg.eigh(moment).eigenvectors.flip(1)
                state[f"basis_{dim}"] = basis.to(grad.dtype)
            elif t % group["precondition_frequency"] == 0:
                basis = state[f"basis_{dim}"].double()
                order = (basis.mT @ moment @ basis).diagonal().argsort(descending=True)
                state["second_moment"] = state["second_moment"].index_select(dim, order)
                basis = basis[:, order]
                # Directions without any gradient keep their axes, which would be rounding errors.
                columns = moment @ basis + 1e-12 * moment.trace() * basis
                state[f"basis_{dim}"] = torch.linalg.qr(columns).Q.to(grad.dtype)


def turned(tensor: Tensor, bases: dict[int, Tensor]) -> Tensor:
    """Return the tensor in other axes: along each of these dimensions, the columns of a basis."""
    for dim, basis in bases.items():
        tensor = torch.tensordot(tensor, basis, dims=[[dim], [0]]).movedim(-1, dim)
    return tensor
