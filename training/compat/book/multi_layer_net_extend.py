"""The network of the book's ``common.multi_layer_net_extend``, with batch normalization and dropout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from backend.types import Array
from layers.compat.book import np
from layers.compat.book.gradient import numerical_gradient
from layers.compat.book.layers import BatchNormalization, Dropout
from training.compat.book import multi_layer_net as _plain
from training.compat.book.multi_layer_net import *  # noqa: F403  (the book's module exports nearly the same)
from training.compat.book.multi_layer_net import MultiLayerNet, _accuracy

__all__ = [*(name for name in _plain.__all__ if name != "MultiLayerNet"), "MultiLayerNetExtend"]


class MultiLayerNetExtend(MultiLayerNet):
    """A ``MultiLayerNet`` with optional batch normalization before and dropout after each activation.

    Args:
        input_size, hidden_size_list, output_size, activation, weight_init_std, weight_decay_lambda: as for
        ``MultiLayerNet``. use_dropout: add a Dropout after each activation. dropout_ration: the share that it drops
        (the book's spelling). use_batchnorm: add a BatchNormalization, with gamma1, beta1, … in ``params``, before each
        activation.

    ``predict`` and ``loss`` run in evaluation mode unless ``train_flg`` is True.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: Any = "relu",
        weight_decay_lambda: float = 0,
        use_dropout: bool = False,
        dropout_ration: float = 0.5,
        use_batchnorm: bool = False,
    ) -> None:
        self.use_dropout = use_dropout
        self.use_batchnorm = use_batchnorm
        self._dropout_ratio = dropout_ration
        super().__init__(input_size, hidden_size_list, output_size, activation, weight_init_std, weight_decay_lambda)

    def _add_after_affine(self, index: int, activation: Any) -> None:
        if self.use_batchnorm:
            gamma = self.params[f"gamma{index}"] = np.ones(self.hidden_size_list[index - 1])
            beta = self.params[f"beta{index}"] = np.zeros(self.hidden_size_list[index - 1])
            self.layers[f"BatchNorm{index}"] = BatchNormalization(gamma, beta)
        super()._add_after_affine(index, activation)
        if self.use_dropout:
            self.layers[f"Dropout{index}"] = Dropout(self._dropout_ratio)

    def predict(self, x: Array, train_flg: bool = False) -> Any:
        """Return the scores (N, output_size) of samples ``x`` (N, input_size)."""
        for layer in self.layers.values():
            x = layer.forward(x, train_flg) if isinstance(layer, (BatchNormalization, Dropout)) else layer.forward(x)
        return x

    def loss(self, x: Array, t: Array, train_flg: bool = False) -> Any:
        """Return the loss, 0-d, of samples and labels (indices or one-hot), with the weight decay."""
        return self.last_layer.forward(self.predict(x, train_flg), t) + self._weight_decay()

    def accuracy(self, x: Array, t: Array) -> float:
        """Return the share of samples whose highest score, in evaluation, is their label's."""
        return _accuracy(self.predict(x, train_flg=False), t)

    def numerical_gradient(self, x: Array, t: Array) -> dict[str, Any]:
        """Return the gradient of the training loss with respect to every parameter, by central differences.

        With dropout each evaluation draws another mask, as in the book, which makes the result useless.
        """

        def loss(_: Any) -> Any:
            return self.loss(x, t, train_flg=True)

        return {name: numerical_gradient(loss, self.params[name]) for name in self._names()}

    def gradient(self, x: Array, t: Array) -> dict[str, Any]:
        """Return the gradient of the training loss with respect to every parameter, by backpropagation."""
        self.loss(x, t, train_flg=True)
        grads = self._backward()
        for index in range(1, self.hidden_layer_num + 1) if self.use_batchnorm else ():
            layer = self.layers[f"BatchNorm{index}"]
            grads[f"gamma{index}"], grads[f"beta{index}"] = layer.dgamma, layer.dbeta
        return {name: grads[name] for name in self._names()}

    def _names(self) -> Iterator[str]:
        """Yield the parameters' names in the book's order of gradients: layer by layer, while in ``params`` batch
        normalization comes last."""
        for index in range(1, self.hidden_layer_num + 2):
            names = (f"{name}{index}" for name in ("W", "b", "gamma", "beta"))
            yield from (name for name in names if name in self.params)
