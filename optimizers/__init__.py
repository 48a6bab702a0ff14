"""Every update rule written out: what torch.optim computes, by the formulas of the papers.

Each class can replace the class of the same name in torch.optim. It takes the same arguments in
the same order and gives the same results; only the speed switches (foreach, fused, capturable,
differentiable) are missing. Read `update_rule.py` first, then one file after the other, in the
order of the imports below: each fixes a problem of the one before. A class is a constructor and
one formula.

In the formulas θ is a parameter, g its gradient, and t the number of the step, counted from 1.
Products, squares and roots are elementwise. Hyperparameters have the names of PyTorch's
documentation.
"""

# ruff: noqa: I001 (in the order in which one would teach them)
from optimizers.update_rule import UpdateRule
from optimizers.gradient_descent import ASGD, SGD
from optimizers.adaptive import Adadelta, Adagrad, RMSprop, Rprop
from optimizers.adam import Adam, AdamW, Adamax, NAdam, RAdam, SparseAdam
from optimizers.matrices import Adafactor, Muon
from optimizers.lbfgs import LBFGS

__all__ = [
    "ASGD", "LBFGS", "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon",
    "NAdam", "RAdam", "RMSprop", "Rprop", "SparseAdam", "UpdateRule",
]  # fmt: skip
