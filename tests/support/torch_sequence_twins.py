"""Networks of sequences in plain torch.nn, whose modules are named as the layers' places say."""

import torch
from torch import nn

from tests.support.torch_twins import Apply, GlobalMean, Sum


class SelfAttention(nn.MultiheadAttention):
    """Attends to its own input."""

    def __init__(self, features, heads, causal=False):
        super().__init__(features, heads, batch_first=True)
        self.causal = causal

    def forward(self, x):
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1) if self.causal else None
        return super().forward(x, x, x, need_weights=False, attn_mask=later)[0]


class Positions(nn.Embedding):
    """Adds a learned vector for each position."""

    def forward(self, x):
        return x + self.weight[: x.shape[1]]


def encoder(depth, features, heads, hidden, causal=False):
    """Blocks with the normalization first, and a last normalization."""
    layers = []
    for _ in range(depth):
        layers.append(Sum(nn.Sequential(nn.LayerNorm(features), SelfAttention(features, heads, causal))))
        mlp = nn.Linear(features, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, features)
        layers.append(Sum(nn.Sequential(nn.LayerNorm(features), *mlp)))
    return [*layers, nn.LayerNorm(features)]


def vision_transformer(depth, features, heads, hidden, patches, classes):
    """Vision transformer of 4x4 patches, without a position for the class."""
    cut = Apply(lambda x: x.flatten(2)), Apply(lambda x: x.transpose(1, 2))
    layers = [nn.Conv2d(3, features, 4, 4), *cut, Positions(patches, features)]
    mean = Apply(lambda x: x.transpose(1, 2)), Apply(lambda x: x.unsqueeze(3)), GlobalMean()
    blocks = encoder(depth, features, heads, hidden)
    return nn.Sequential(*layers, *blocks, *mean, nn.Linear(features, classes))


def add_waves(x):
    """Add the sinusoidal positions of "Attention is all you need"."""
    length, size = x.shape[1:]
    angles = torch.arange(length).double().outer(10000 ** (-2 * (torch.arange(size) // 2).double() / size))
    return x + torch.where(torch.arange(size) % 2 == 0, angles.sin(), angles.cos()).to(x.dtype)


def char_transformer(characters, size, hidden, depth, heads):
    blocks = encoder(depth, size, heads, hidden, causal=True)
    return nn.Sequential(nn.Embedding(characters, size), Apply(add_waves), *blocks, nn.Linear(size, characters))


class LSTMStates(nn.LSTM):
    """Returns the states of all steps alone."""

    def forward(self, x):
        return super().forward(x)[0]


class GRUStates(nn.GRU):
    """Returns the states of all steps alone."""

    def forward(self, x):
        return super().forward(x)[0]


def recurrent(count, size, hidden, classes):
    """Scores of each step from an LSTM and a GRU behind it."""
    cells = LSTMStates(size, hidden, batch_first=True), GRUStates(hidden, hidden, batch_first=True)
    return nn.Sequential(nn.Embedding(count, size), *cells, nn.Linear(hidden, classes))
