"""Every update rule written out: what torch.optim computes, as the papers have it.

Each class stands in for the class of the same name in torch.optim, with the same arguments in the
same order and the same results, less its speed switches (foreach, fused, capturable,
differentiable). Read `update_rule.py` first, then a chapter a file, as imported below: each answers
a problem of the one before. A class is a constructor and one formula.

In the formulas θ is a parameter, g its gradient, t the step counted from 1; products, squares and
roots are element by element. Hyperparameters are those of PyTorch's documentation.
"""

# ruff: noqa: I001 (in the order in which one would teach them)
from optimizers.update_rule import UpdateRule
from optimizers.gradient_descent import ASGD, SGD
from optimizers.adaptive import Adadelta, Adagrad, RMSprop, Rprop
from optimizers.adam import Adam, AdamW, Adamax, NAdam, RAdam, SparseAdam
from optimizers.matrices import Adafactor, Muon
from optimizers.lbfgs import LBFGS

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "UpdateRule",
]
