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
# Those of optimizers/ that torch has not, each used where it is named. What a paper tunes is tuned,
# and the betas and eps as above.
YOUNG = {
    # Jordan et al., "Muon", 2024; Liu et al., arXiv:2502.16982: at a scale with which both have one
    # rate.
    "Muon | AdamW": "Muon(lr=log(1e-5, 1), momentum=1 - log(1e-2, 1), "
    "weight_decay=0 or log(1e-5, 10), adjust_lr_fn='match_rms_adamw') | AdamW",
    # Chen et al., arXiv:2302.06675: a rate three to ten times lower than AdamW's.
    "optimizers.Lion": "optimizers.Lion(lr=log(1e-6, 0.1), "
    "betas=(1 - log(1e-3, 1), 1 - log(1e-4, 1)), weight_decay=0 or log(1e-5, 10))",
    # Pagliardini, Ablin and Grangier, arXiv:2409.03137: alpha, and how slow its average is.
    "optimizers.AdEMAMix": "optimizers.AdEMAMix(lr=log(1e-5, 1), "
    "betas=(1 - log(1e-3, 1), 1 - log(1e-4, 1), 1 - log(1e-5, 0.1)), alpha=log(0.5, 20), "
    "eps=log(1e-10, 0.1))",
    # Taniguchi et al., arXiv:2411.02853: as Adam.
    "optimizers.ADOPT": "optimizers.ADOPT(lr=log(1e-5, 1), "
    "betas=(1 - log(1e-3, 1), 1 - log(1e-4, 1)), eps=log(1e-10, 0.1))",
    # Liang et al., arXiv:2411.16085: as AdamW.
    "optimizers.CautiousAdamW": "optimizers.CautiousAdamW(lr=log(1e-5, 1), "
    "betas=(1 - log(1e-3, 1), 1 - log(1e-4, 1)), eps=log(1e-10, 0.1), "
    "weight_decay=0 or log(1e-5, 10))",
    # Defazio et al., arXiv:2405.15682: rates up to 50 times those of SGD, and momentum above 0.
    "optimizers.SGDScheduleFree": "optimizers.SGDScheduleFree(lr=log(1e-3, 100), "
    "momentum=1 - log(1e-3, 0.9), warmup_steps=0 or 50)",
    "optimizers.AdamWScheduleFree": "optimizers.AdamWScheduleFree(lr=log(1e-5, 1), "
    "betas=(1 - log(1e-3, 0.9), 1 - log(1e-4, 1)), eps=log(1e-10, 0.1), warmup_steps=0 or 50)",
    # Mishchenko and Defazio, arXiv:2306.06101: lr stays near 1, and d_coef is the knob to turn.
    "optimizers.Prodigy": "optimizers.Prodigy(lr=log(0.1, 10), d_coef=log(0.1, 10), "
    "betas=(1 - log(1e-3, 1), 1 - log(1e-4, 1)), use_bias_correction=True or False)",
    # Vyas et al., arXiv:2409.11321: also how often the bases are renewed.
    "optimizers.SOAP": "optimizers.SOAP(lr=log(1e-5, 1), "
    "betas=(1 - log(1e-3, 1), 1 - log(1e-4, 1)), eps=log(1e-10, 0.1), "
    "precondition_frequency=1 or 10, weight_decay=0 or log(1e-5, 10))",
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
