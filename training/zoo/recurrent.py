"""Recurrent networks that predict the next character of a text: Karpathy, "The unreasonable effectiveness of recurrent
neural networks" (2015).

They take indices of characters (N, T) and return scores (N, T, characters), for ``SoftmaxWithLoss`` with the characters
that follow. A ``training.Trainer`` trains a ``training.models.Network`` of them, or a loop of one's own, as in
``examples/char_rnn.py``; ``xpnet train`` has data sets of pictures and tables alone.
"""

from __future__ import annotations

from backend.checks import whole
from layers import GRU, LSTM, RNN, Dropout, Embedding, Layer, PositionwiseAffine, Sequential


def char_rnn(characters: int, size: int = 32, hidden: int = 128, depth: int = 1, dropout: float = 0.0) -> Sequential:
    """Return an embedding, ``depth`` layers ``RNN``, and scores for each character.

    Args:
        characters: number of different characters.
        size: of a character's vector.
        hidden: units of each recurrent layer.
        dropout: share of the states that is dropped behind each of them, in training.

    Raises:
        TypeError: an argument is not a number.
        ValueError: a size is not positive, or ``dropout`` is out of range.

    Examples:
        >>> import numpy
        >>> from training.zoo.recurrent import char_rnn
        >>> char_rnn(65).forward(numpy.zeros((2, 7), "int32")).shape
        (2, 7, 65)
    """
    return _of_characters(RNN, characters, size, hidden, depth, dropout)


def char_lstm(characters: int, size: int = 32, hidden: int = 128, depth: int = 1, dropout: float = 0.0) -> Sequential:
    """Return ``char_rnn`` of layers ``LSTM``; arguments and errors as there."""
    return _of_characters(LSTM, characters, size, hidden, depth, dropout)


def char_gru(characters: int, size: int = 32, hidden: int = 128, depth: int = 1, dropout: float = 0.0) -> Sequential:
    """Return ``char_rnn`` of layers ``GRU``; arguments and errors as there."""
    return _of_characters(GRU, characters, size, hidden, depth, dropout)


def _of_characters(
    kind: type[RNN | LSTM | GRU], characters: int, size: int, hidden: int, depth: int, dropout: float
) -> Sequential:
    layers: list[Layer] = [Embedding.of(characters, size)]
    for place in range(whole("depth", depth, 1, 1000)):
        layers.append(kind.of(hidden if place else size, hidden))
        if dropout:
            layers.append(Dropout(dropout, inverted=True))
    return Sequential(*layers, PositionwiseAffine.of(hidden, characters, "xavier"))
