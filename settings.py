"""The settings that the scripts share. Change one here, and every script and table follows."""

# The tutorial's four, by the names in its legend.
OPTIMIZERS = {
    "SGD": "SGD()",
    "Momentum": "SGD(momentum=0.8)",
    "RMSprop": "RMSprop(alpha=0.9)",
    "Adam": "Adam(betas=(0.9, 0.99))",
}
# What `--optimizers today` stands for: those that people ask for since 2020, and Adam.
TODAY = {
    "Adam": "Adam()",
    "Muon": "Muon(lr=0.02) | AdamW(lr=0.003)",
    "SOAP": "optimizers.SOAP()",
    "Lion": "optimizers.Lion()",
    "AdEMAMix": "optimizers.AdEMAMix()",
    "ADOPT": "optimizers.ADOPT()",
    "Cautious": "optimizers.CautiousAdamW()",
    "ScheduleFree": "optimizers.AdamWScheduleFree()",
    "Prodigy": "optimizers.Prodigy()",
}
LR = 0.01
SEED = 81  # of seeds 0 to 99, the one whose curves of the parabola lie nearest to the medians
TASK = "parabola"  # what is learned, if no --task is named: an entry of tasks.py
# Colours of your choice in all figures, by the names in the legend: {"Adam": "crimson"}.
COLORS: dict[str, str] = {}
