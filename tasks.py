"""Problems to learn: data, net and loss, an entry each. Add one, and every script knows it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

import data
from models import Attention, BagOfWords, Net, NextLetter, mlp

Loss: TypeAlias = Callable[[Any, Tensor], Tensor]  # of outputs, as the net gives them, and targets


@dataclass(frozen=True)
class Task:
    """A problem to learn.

    `make_data(seed)` returns two data sets of (x, y) pairs: one to train on, one held out. Its
    other arguments, if it has any, can be named on the command line: `sine(noise=0.3)`. Where they
    are TensorDatasets, many nets can train at once. Others are served by a DataLoader, to which
    `collate_fn` and `num_workers` go.
    `make_net()` is called right after `torch.manual_seed(seed)`. `loss(outputs, targets)` returns a
    mean, a scalar, as those of torch.nn.functional do. It takes what the net returns, a tensor or
    not. Beside it stands the accuracy, where outputs and targets have one, or what
    `metric(outputs, targets)` returns, under its name.
    """

    make_data: Callable[..., tuple[Any, Any]]
    make_net: Callable[[], nn.Module]
    loss: Loss
    epochs: int
    batch_size: int
    target: float | None = None  # the training loss that counts as reached
    metric: Callable[..., float] | None = None
    lesson: str = ""
    source: str = ""
    collate_fn: Callable[..., Any] | None = None
    num_workers: int = 0
    name: str = field(default="", compare=False)  # as typed, for figures


TASKS = {
    "parabola": Task(
        data.parabola,
        Net,
        mse_loss,
        epochs=12,
        batch_size=32,
        target=0.02,
        lesson="The tutorial's curve. Each at its own best rate, all come down to the noise.",
        source="Morvan Zhou (莫烦 Python), PyTorch tutorial, section Optimizer",
    ),
    "sine": Task(
        data.sine,
        partial(mlp, 1, 32, 32, 1),
        mse_loss,
        epochs=15,
        batch_size=32,
        target=0.1,
        lesson="Fast waves. Adam has them when SGD, with momentum or without, draws a line.",
        source="Rahaman et al., On the spectral bias of neural networks, arXiv:1806.08734",
    ),
    "scales": Task(
        data.scales,
        partial(nn.Linear, 8, 1),
        mse_loss,
        epochs=12,
        batch_size=32,
        target=0.1,
        lesson="Features of very different scales. One rate for all leaves tens of times the loss.",
        source="Duchi, Hazan and Singer, Adaptive subgradient methods, JMLR 12, 2011",
    ),
    "deep": Task(
        partial(data.sine, periods=1.0),
        partial(mlp, 1, *[12] * 6, 1),
        mse_loss,
        epochs=12,
        batch_size=32,
        target=0.04,
        lesson="Six layers of tanh. All reach one plateau, and Adam is the first to leave it.",
        source="Glorot and Bengio, Understanding the difficulty of training deep feedforward "
        "neural networks, AISTATS 2010",
    ),
    "parity": Task(
        data.parity,
        partial(mlp, 8, 32, 2, activation=nn.ReLU),
        cross_entropy,
        epochs=15,
        batch_size=32,
        target=0.1,
        lesson="A plateau, then a cliff. Adagrad, whose steps shrink meanwhile, ends highest.",
        source="Barak et al., Hidden progress in deep learning, arXiv:2207.08799",
    ),
    "spirals": Task(
        data.spirals,
        partial(mlp, 2, 24, 24, 2),
        cross_entropy,
        epochs=15,
        batch_size=32,
        target=0.2,
        lesson="A border that winds. SGD, with momentum or without, leaves it all but straight.",
        source="Lang and Witbrock, Learning to tell two spirals apart, Connectionist Models "
        "Summer School 1988",
    ),
    "bottleneck": Task(
        data.mixtures,
        partial(mlp, 16, 12, 3, 12, 16),
        mse_loss,
        epochs=12,
        batch_size=32,
        target=0.1,
        lesson="An autoencoder. Momentum alone makes SGD as good as RMSprop; Adam has both.",
        source="Hinton and Salakhutdinov, Reducing the dimensionality of data with neural "
        "networks, Science 313, 2006",
    ),
    "logistic": Task(
        data.two_clouds,
        partial(nn.Linear, 10, 2),
        cross_entropy,
        epochs=12,
        batch_size=32,
        target=0.36,
        lesson="Convex, and of one scale. All find the same minimum, to a hundredth.",
        source="Cox, The regression analysis of binary sequences, JRSS B 20, 1958",
    ),
    "rare_words": Task(
        data.rare_words,
        BagOfWords,
        mse_loss,
        epochs=6,
        batch_size=32,
        target=0.05,
        lesson="Most rows are seldom touched. Adagrad gives those long steps, SGD the same to all.",
        source="Duchi, Hazan and Singer, Adaptive subgradient methods, JMLR 12, 2011",
    ),
    "terrain": Task(
        data.terrain,
        partial(mlp, 2, 48, 48, 1),
        mse_loss,
        epochs=12,
        batch_size=50,
        target=0.5,
        lesson="A real mountain. The adaptive ones tie. SGD's loss is a third higher.",
        source="matplotlib's sample data, jacksboro_fault_dem.npz",
    ),
    "prose": Task(
        data.prose,
        NextLetter,
        cross_entropy,
        epochs=8,
        batch_size=100,
        target=2.0,
        lesson="Real text. Learning by heart costs more than the choice among optimizers.",
        source="Python's documentation, the module pydoc_data.topics; Bengio et al., A neural "
        "probabilistic language model, JMLR 3, 2003",
    ),
}

# The same data and first weights as rare_words, with gradients that hold only the rows which a
# mini-batch touches. SparseAdam takes no others, and most optimizers none of these. So it is not
# among all tasks, but by itself: --task tasks.sparse_words.
sparse_words = replace(
    TASKS["rare_words"],
    make_net=partial(BagOfWords, sparse=True),
    lesson="SparseAdam lets a row rest that no word of the mini-batch asks for; Adam moves it on.",
)

# Rare classes. It is by itself, too: the inputs say nothing of the classes, all is learned by
# heart, and held-out data show nothing. compare_classes.py draws it; --task tasks.zipf.
zipf = Task(
    data.zipf,
    partial(nn.Linear, 100, 100),
    cross_entropy,
    epochs=60,
    batch_size=1000,
    lesson="Most classes are rare. Adam learns those by heart, SGD the common ones alone.",
    source="Kunstner et al., Heavy-tailed class imbalance and why Adam outperforms gradient "
    "descent on language models, arXiv:2402.19449",
)

# A badly conditioned matrix. It is by itself, as it is there for optimizers that see matrices:
# --task tasks.matrix; docs/why.md has what they make of it, and of "tasks.matrix(turned=False)".
matrix = Task(
    data.matrix,
    partial(mlp, 16, 16, 16, activation=nn.Identity),
    mse_loss,
    epochs=12,
    batch_size=32,
    target=0.1,
    lesson="Weak directions lie across all features. SOAP and Muon find them, and Adam does not.",
    source="Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam, arXiv:2409.11321",
)

# Attention, by itself for the same reason: --task tasks.lookup.
lookup = Task(
    data.lookup,
    Attention,
    cross_entropy,
    epochs=5,
    batch_size=32,
    target=0.1,
    lesson="Attention has to match keys. SOAP and Muon, for its matrices, get it sooner than Adam.",
    source="Ba et al., Using fast weights to attend to the recent past, arXiv:1610.06258",
)
