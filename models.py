"""The regression net that every optimizer trains."""

from torch import Tensor, nn


class Net(nn.Module):
    """A net with one hidden layer: `hidden` (linear), ReLU, `predict` (linear).

    Maps (batch, n_features) to (batch, n_outputs). Its first weights are PyTorch's default
    (uniform within ±1/√fan_in), drawn from the global generator: call `torch.manual_seed` right
    before `Net()` to have the same net again.
    """

    def __init__(self, n_features: int = 1, n_hidden: int = 20, n_outputs: int = 1):
        super().__init__()
        self.hidden = nn.Linear(n_features, n_hidden)
        self.predict = nn.Linear(n_hidden, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(self.hidden(x).relu())
