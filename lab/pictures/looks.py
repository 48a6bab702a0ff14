"""How a line looks: an optimizer has one colour and one dash in every figure.

An optimizer's variants have shades of its colour. No two lines of a figure differ by hue alone.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
from matplotlib import rcParamsDefault
from matplotlib.colors import to_rgb

from settings import COLORS

Color: TypeAlias = tuple[float, float, float]
Look: TypeAlias = dict[str, Any]  # what `axes.plot` takes

# After Petroff's colours, which people with any colour vision can tell apart (arXiv:2107.02270).
# Each has a contrast of at least 3 on white.
PALETTE = [
    *("#3f90da", "#c98100", "#bd1f01", "#18864b", "#832db6"),  # blue, orange, red, green, purple
    *("#a96b59", "#e0559a", "#00868b", "#e76300", "#1f4fa8"),  # brown, pink, teal, orange, navy
]
# Lengths of dashes and gaps, in line widths.
DASHES: list[Any] = [
    "-",
    (0, (5, 1.5)),
    (0, (6, 1.2, 1, 1.2, 1, 1.2)),
    (0, (2, 1)),
    (0, (7, 1.2, 1.2, 1.2)),
    (0, (10, 2)),
    (0, (1, 1)),
    (0, (10, 1.5, 3, 1.5)),
]
# The first of these has the first colour and the first dash, and so on, round and round.
NAMES = [
    *("SGD", "Momentum", "Adagrad", "RMSprop", "Adam", "AdamW", "NAdam", "RAdam", "Adamax"),
    *("Adadelta", "ASGD", "Rprop", "Adafactor", "LBFGS", "Nesterov", "SparseAdam", "Muon", "Lion"),
    *("AdEMAMix", "ADOPT", "SGDScheduleFree", "SOAP", "Prodigy", "CautiousAdamW"),
    "AdamWScheduleFree",
]

FAINT = 0.4  # how much of its colour a line has that lies behind its own mean
MIN_CONTRAST, MIN_CONTRAST_ON_DARK = 3.0, 6.0  # thin lines fade on a dark ground
SHADES = 0, 0.5, 0.25, 0.7, 0.4, 0.6  # how near to letters a colour is: itself, and its variants
SAME_LIGHTNESS = 12.0  # lines of one dash differ by more, of 100


def looks_of(labels: Iterable[str]) -> dict[str, Look]:
    """Return how the line of each label looks.

    Its colour is that of its name: of `SGD` in "SGD", "SGD(lr=0.1)" and "SGD 2". Names that nobody
    knows have colours that no other name here has, as long as there are any.
    """
    labels = list(labels)
    places = places_of(labels)
    own = sheet_colors()
    names = [name_of(label) for label in labels]
    variants: dict[str, list[str]] = {}
    for label in sorted(labels, key=lambda label: label.removesuffix("()") not in names):
        variants.setdefault(name_of(label), []).append(label)
    looks: dict[str, Look] = {}
    for name, place in places.items():
        base = to_rgb(COLORS[name]) if name in COLORS else own[place % len(own)]
        for k, label in enumerate(variants[name]):
            shades = [shade(base, k + i) for i in range(len(SHADES))]
            if label in COLORS:
                shades = [to_rgb(COLORS[label])]
            color, dash = free_look(shades, place + 3 * k, looks)
            looks[label] = {
                "color": color,
                "linestyle": DASHES[dash],
                "linewidth": 4 / 3 * plt.rcParams["lines.linewidth"],
                "zorder": 2 + dash / 100,  # those with gaps lie above
            }
    return {label: looks[label] for label in labels}


def name_of(label: str) -> str:
    """Return the name at the start of a label: SGD of "torch.optim.SGD(lr=0.1) + StepLR()"."""
    match = re.match(r"(?:\w+\.)*(\w+)", label)
    return match.group(1) if match else label


def places_of(labels: Iterable[str]) -> dict[str, int]:
    """Return the place of each label's name among colours and dashes; the known ones first."""
    names = list(dict.fromkeys(map(name_of, labels)))
    places = {name: NAMES.index(name) for name in names if name in NAMES}
    n = len(PALETTE)
    taken = {place % n for place in places.values()}
    free = [place for place in [*range(5, n), *range(5)] if place not in taken] or [*range(n)]
    others = (name for name in names if name not in places)
    return places | {name: free[k % len(free)] for k, name in enumerate(others)}


def free_look(shades: Sequence[Color], first: int, looks: dict[str, Look]) -> tuple[Color, int]:
    """Return the first shade, with the first dash from this one on that no line as light has."""
    for color in shades:
        for k in range(len(DASHES)):
            dash = (first + k) % len(DASHES)
            others = [look["color"] for look in looks.values() if look["linestyle"] == DASHES[dash]]
            if all(abs(lightness(color) - lightness(other)) > SAME_LIGHTNESS for other in others):
                return color, dash
    return shades[0], first % len(DASHES)


# ---------------------------------------------------------------- colours


def class_colors(n_classes: int) -> list[Color]:
    """Return a colour for each class of samples: none is an optimizer's, and each is lighter."""
    shares = [0.3 + 0.7 * k / max(1, n_classes - 1) for k in range(n_classes)]
    return [to_rgb(plt.get_cmap("cividis")(share)) for share in shares]


def sheet_colors() -> list[Color]:
    """Return the palette, or that of the style sheet if it has one, fit to be seen."""
    cycle = plt.rcParams["axes.prop_cycle"]
    if cycle != rcParamsDefault["axes.prop_cycle"] and "color" in cycle.by_key():
        return [visible(color) for color in cycle.by_key()["color"]]
    return [visible(color) for color in PALETTE]


def ground_color() -> Color:
    return to_rgb(plt.rcParams["axes.facecolor"])


def letter_color() -> Color:
    """Return the colour of letters: black, or as the style sheet has it."""
    return to_rgb(plt.rcParams["text.color"])


def background_color() -> Color:
    """Return a colour near that of the ground, for what lies behind."""
    return mixed(ground_color(), letter_color(), 0.17 if luminance(ground_color()) > 0.2 else 0.28)


def caption_color() -> Color:
    """Return a quiet colour for small letters."""
    return mixed(letter_color(), ground_color(), 0.35)


def mixed(color: Color, other: Color, share: float) -> Color:
    """Return the colour with a share of the other in it."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(color, other, strict=True))
    return red, green, blue


def visible(color: str | Color) -> Color:
    """Return the colour, nearer to that of letters if need be, with contrast to the ground."""
    color, ground = to_rgb(color), ground_color()
    wanted = MIN_CONTRAST if luminance(ground) > 0.2 else MIN_CONTRAST_ON_DARK
    shades = (mixed(color, letter_color(), share / 20) for share in range(20))
    return next((shade for shade in shades if contrast(shade, ground) >= wanted), letter_color())


def shade(color: Color, k: int) -> Color:
    """Return the k-th shade of a colour: itself, and then nearer and nearer to letters."""
    return mixed(color, letter_color(), SHADES[k % len(SHADES)])


def luminance(color: Color) -> float:
    """Return how light a colour is on a screen, from 0 to 1 (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def lightness(color: Color) -> float:
    """Return how light a colour is to the eye, from 0 to 100: the L* of CIE 1976."""
    y = luminance(color)
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def contrast(color: Color, other: Color) -> float:
    """Return the contrast of two colours, from 1 to 21 (WCAG 2)."""
    low, high = sorted((luminance(color), luminance(other)))
    return (high + 0.05) / (low + 0.05)
