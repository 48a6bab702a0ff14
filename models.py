"""The nets of tasks.py. The tutorial's is the first.

First weights are PyTorch's defaults, drawn from the global generator: call `torch.manual_seed`
right before a net is made to have the same one again.
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


def dense_net(*sizes: int, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """Return linear layers from so many inputs to so many outputs, with activations between."""
    layers = []
    for n_inputs, n_outputs in pairwise(sizes):
        layers += [nn.Linear(n_inputs, n_outputs), activation()]
    return nn.Sequential(*layers[:-1])


class SumOfWords(nn.Module):
    """The value of a text: a number for each word, and their sum, divided by √length.

    Maps numbers of words (batch, length) to (batch, 1). A `sparse` gradient holds only the rows of
    words that came up.
    """

    def __init__(self, n_words: int = 500, sparse: bool = False):
        super().__init__()
        self.values = nn.Embedding(n_words, 1, sparse=sparse)
        nn.init.zeros_(self.values.weight)  # what is not known yet counts for nothing

    def forward(self, x: Tensor) -> Tensor:
        return self.values(x).sum(1) / x.shape[1] ** 0.5


class NextLetter(nn.Module):
    """Embeds each of 4 letters, joins them, and maps to 27 scores through a hidden layer.

    Bengio et al., "A neural probabilistic language model", JMLR 3, 2003. Maps (batch, 4) to
    (batch, 27).
    """

    def __init__(self, n_letters: int = 27, n_context: int = 4, width: int = 8, n_hidden: int = 48):
        super().__init__()
        self.embed = nn.Embedding(n_letters, width)
        self.hidden = nn.Linear(n_context * width, n_hidden)
        self.predict = nn.Linear(n_hidden, n_letters)

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(self.hidden(self.embed(x).flatten(1)).tanh())
