"""Which optimizer learns fastest? Morvan's lesson in one file: read it, run it, change it."""

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

LR = 0.01
BATCH_SIZE = 32
EPOCHS = 12
SEED = 81

# The data: y = x², with noise. The rows are shuffled once here, and again in each epoch.
torch.manual_seed(SEED)
x = torch.linspace(-1, 1, 1000).unsqueeze(1)
y = x**2 + 0.1 * torch.randn(x.shape)
rows = torch.randperm(1000)
order = torch.Generator().manual_seed(0)
loader = DataLoader(TensorDataset(x[rows], y[rows]), BATCH_SIZE, shuffle=True, generator=order)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(1, 20)
        self.predict = nn.Linear(20, 1)

    def forward(self, x):
        return self.predict(self.hidden(x).relu())


# A net for each optimizer. All start from the same weights.
nets = {}
for name in ["SGD", "Momentum", "RMSprop", "Adam"]:
    torch.manual_seed(SEED)
    nets[name] = Net()
optimizers = {
    "SGD": torch.optim.SGD(nets["SGD"].parameters(), LR),
    "Momentum": torch.optim.SGD(nets["Momentum"].parameters(), LR, momentum=0.8),
    "RMSprop": torch.optim.RMSprop(nets["RMSprop"].parameters(), LR, alpha=0.9),
    "Adam": torch.optim.Adam(nets["Adam"].parameters(), LR, betas=(0.9, 0.99)),
}

# Each net learns from the same mini-batches, in the same order.
losses: dict[str, list[float]] = {name: [] for name in nets}
for _ in range(EPOCHS):
    for batch_x, batch_y in loader:
        for name, optimizer in optimizers.items():
            loss = nn.functional.mse_loss(nets[name](batch_x), batch_y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[name].append(loss.item())  # of this mini-batch, before the step

for name, history in losses.items():
    plt.plot(history, label=name)
plt.gca().set(xlabel="Steps", ylabel="Loss", ylim=(0, 0.2))
plt.legend()
plt.savefig("tutorial.png")
plt.show()
