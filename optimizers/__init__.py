"""Every update rule written out: what torch.optim computes, by the formulas of the papers.

A class with the name of one in torch.optim can replace that. It takes the same arguments in the
same order and gives the same results; only the speed switches (foreach, fused, capturable,
differentiable) are missing. Those of `after_adam.py`, `no_schedule.py` and `soap.py` are younger,
and have the names and arguments of their authors' packages. Read `update_rule.py` first, then one
file after the other, in the order of the imports below: each fixes a problem of one before. A class
is a constructor and one formula.

In the formulas θ is a parameter, g its gradient, and t the number of the step, counted from 1.
Products, squares and roots are elementwise. Hyperparameters have the names of PyTorch's
documentation.
"""

# ruff: noqa: I001 (in the order in which one would teach them)
from optimizers.update_rule import UpdateRule
from optimizers.gradient_descent import ASGD, SGD
from optimizers.adaptive import Adadelta, Adagrad, RMSprop, Rprop
from optimizers.adam import Adam, AdamW, Adamax, NAdam, RAdam, SparseAdam
from optimizers.after_adam import ADOPT, AdEMAMix, CautiousAdamW, Lion
from optimizers.no_schedule import AdamWScheduleFree, Prodigy, SGDScheduleFree
from optimizers.matrices import Adafactor, Muon
from optimizers.soap import SOAP
from optimizers.lbfgs import LBFGS

__all__ = [
    "ADOPT", "ASGD", "LBFGS", "SGD", "SOAP", "AdEMAMix", "Adadelta", "Adafactor", "Adagrad",
    "Adam", "AdamW", "AdamWScheduleFree", "Adamax", "CautiousAdamW", "Lion", "Muon", "NAdam",
    "Prodigy", "RAdam", "RMSprop", "Rprop", "SGDScheduleFree", "SparseAdam", "UpdateRule",
]  # fmt: skip
