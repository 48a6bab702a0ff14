"""The nets of tasks.py. The first one is the tutorial's.

First weights are PyTorch's defaults, drawn from its global generator: to get the same weights
again, call `torch.manual_seed` right before you make the net.
"""

from itertools import pairwise

from torch import Tensor, nn


class Net(nn.Module):
    """A net with one hidden layer: `hidden` (linear), ReLU, `predict` (linear).

    Maps (batch, n_features) to (batch, n_outputs).
    """

    def __init__(self, n_features: int = 1, n_hidden: int = 20, n_outputs: int = 1):
        super().__init__()
        self.hidden = nn.Linear(n_features, n_hidden)
        self.predict = nn.Linear(n_hidden, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(self.hidden(x).relu())


def mlp(*sizes: int, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """Return a multilayer perceptron: linear layers with an activation between each two.

    `mlp(2, 24, 24, 1)` has 2 inputs, two hidden layers of 24, and 1 output.
    """
    layers: list[nn.Module] = []
    for n_inputs, n_outputs in pairwise(sizes):
        layers += [nn.Linear(n_inputs, n_outputs), activation()]
    return nn.Sequential(*layers[:-1])


class BagOfWords(nn.Module):
    """The score of a text: the sum of one learned value for each word, divided by √length.

    Maps word indices (batch, length) to (batch, 1). If `sparse`, a gradient holds only the rows of
    the words in the mini-batch.
    """

    def __init__(self, n_words: int = 500, sparse: bool = False):
        super().__init__()
        self.values = nn.Embedding(n_words, 1, sparse=sparse)
        nn.init.zeros_(self.values.weight)  # a word counts 0 until it is trained

    def forward(self, x: Tensor) -> Tensor:
        return self.values(x).sum(1) / x.shape[1] ** 0.5


class NextLetter(nn.Module):
    """Predicts the next letter: embeds the 4 letters before it, and maps them to 27 scores.

    Bengio et al., "A neural probabilistic language model", JMLR 3, 2003. Maps letter indices
    (batch, 4) to scores (batch, 27), through one hidden layer.
    """

    def __init__(self, n_letters: int = 27, n_context: int = 4, width: int = 8, n_hidden: int = 48):
        super().__init__()
        self.embed = nn.Embedding(n_letters, width)
        self.hidden = nn.Linear(n_context * width, n_hidden)
        self.predict = nn.Linear(n_hidden, n_letters)

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(self.hidden(self.embed(x).flatten(1)).tanh())


class Attention(nn.Module):
    """Attention of one head: the last token asks, and those before it answer as far as they fit.

    Vaswani et al., "Attention is all you need", arXiv:1706.03762. Maps tokens (batch, length) to
    scores (batch, n_outputs).
    """

    def __init__(self, n_tokens: int = 72, width: int = 16, n_outputs: int = 8):
        super().__init__()
        self.embed = nn.Embedding(n_tokens, width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.predict = nn.Linear(width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x)
        others, last = tokens[:, :-1], tokens[:, -1:]
        scores = self.query(last) @ self.key(others).mT / tokens.shape[-1] ** 0.5
        return self.predict((scores.softmax(-1) @ self.value(others)).squeeze(1))
