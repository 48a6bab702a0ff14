"""Where hyperparameters are looked for: a space for each optimizer. Change one, or add your own.

    lr=log(1e-4, 1)                 from 1e-4 to 1, each power of ten as likely
    momentum=1 - log(1e-3, 1)       1 minus such a number: from 0.999 down to 0
    dampening=even(0, 1)            from 0 to 1, each number as likely
    weight_decay=0 or log(1e-5, 1)  one of these, each as likely
    + (none or cosine)              a schedule, one of these

Which ones are tuned, and that 1 - momentum and the like are drawn by their logarithm, is as in
Choi et al., "On empirical comparisons of optimizers for deep learning", arXiv:1910.05446. How wide
a space is, is ours: all learning rates have the same four or five decades, as nobody knows before.
"""

SPACES = {
    # Robbins and Monro, "A stochastic approximation method", Annals of Math. Statistics 22, 1951.
    "SGD": "SGD(lr=log(1e-4, 10))",
    # Polyak 1964; Sutskever et al., "On the importance of initialization and momentum", ICML 2013,
    # let 1 - momentum fall from a tenth to a thousandth. 0 is SGD.
    "Momentum": "SGD(lr=log(1e-4, 10), momentum=0 or 1 - log(1e-3, 1))",
    # Duchi, Hazan and Singer, "Adaptive subgradient methods", JMLR 12, 2011.
    "Adagrad": "Adagrad(lr=log(1e-4, 10), eps=log(1e-10, 0.1))",
    # Tieleman and Hinton, Coursera lecture 6.5, 2012; momentum as Graves, arXiv:1308.0850, has it.
    "RMSprop": "RMSprop(lr=log(1e-5, 1), alpha=1 - log(1e-4, 1), eps=log(1e-10, 0.1), "
    "momentum=0 or 1 - log(1e-3, 1))",
    # Kingma and Ba, arXiv:1412.6980. A large eps makes it Momentum: Choi et al.
    "Adam": "Adam(lr=log(1e-5, 1), betas=(1 - log(1e-3, 1), 1 - log(1e-4, 1)), "
    "eps=log(1e-10, 0.1))",
    # Loshchilov and Hutter, "Decoupled weight decay regularization", arXiv:1711.05101.
    "AdamW": "AdamW(lr=log(1e-5, 1), betas=(1 - log(1e-3, 1), 1 - log(1e-4, 1)), "
    "eps=log(1e-10, 0.1), weight_decay=0 or log(1e-5, 10))",
    # Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016.
    "NAdam": "NAdam(lr=log(1e-5, 1), betas=(1 - log(1e-3, 1), 1 - log(1e-4, 1)), "
    "eps=log(1e-10, 0.1))",
}
# What one takes without tuning, where that is not the class with its own defaults.
DEFAULTS = {"Momentum": "SGD(momentum=0.9)"}
# Of a name that has no space, the learning rate is tuned, and nothing else.
ANY_LR = "log(1e-4, 10)"
# Schedules by a short name; {epochs} is how many a task has.
SCHEDULES = {
    "none": "",
    "cosine": "CosineAnnealingLR(T_max={epochs})",
    "warm_up": "LinearLR(start_factor=0.1, total_iters=2) + CosineAnnealingLR(T_max={epochs})",
}
