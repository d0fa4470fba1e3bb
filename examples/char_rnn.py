"""Train a recurrent network, or a transformer, to write like a text, character by character.

Karpathy, "The unreasonable effectiveness of recurrent neural networks" (2015). Each step takes pieces of the text and
learns, for every place in them, the character that follows. In the end the network writes: each character is drawn from
its probabilities, given those before it. The default text is the documentation that Python brings for ``help()``.

    python -m examples.char_rnn --model CharGRU --steps 2000
    python -m examples.char_rnn --text FILE
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy

from backend import asarray, asnumpy, random, xp
from backend.types import Array
from examples.common import count, mini_batches, option, prepare
from kernels.softmax import softmax
from layers import SoftmaxWithLoss
from training.cli.common import UserError, device_option, user_errors
from training.models.bound_layers import BoundLayers
from training.optim.clipping import clip_gradients
from training.optim.optimizers import Adam
from training.zoo import CHARACTER_NETWORKS

LENGTH = 100_000
"""Characters of the default text."""


def default_text() -> str:
    """Return the beginning of Python's own documentation, which every Python has."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))[:LENGTH]


class Alphabet:
    """The characters of a text, and their indices: those of Unicode's order."""

    def __init__(self, text: str) -> None:
        self.characters = sorted(set(text))
        self._index = {character: index for index, character in enumerate(self.characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> numpy.ndarray:
        """Return the indices of characters: int32 (len(text),)."""
        return numpy.array([self._index[character] for character in text], "int32")

    def decode(self, indices: list[int]) -> str:
        """Return the characters of indices."""
        return "".join(self.characters[index] for index in indices)


def losses(
    network: BoundLayers, codes: Array, steps: int, length: int, batch_size: int = 32, lr: float = 0.003
) -> Iterator[float]:
    """Train on pieces of ``length`` characters from everywhere in the text; yield the mean loss of each tenth of steps.

    Args:
        codes: the text as indices, on the active device.
    """
    loss, optimizer = SoftmaxWithLoss(), Adam(lr)
    tenth, found = max(steps // 10, 1), []
    for step, starts in enumerate(mini_batches(len(codes) - length, batch_size, steps), 1):
        pieces = codes[starts[:, None] + xp.arange(length + 1)]
        scores = network.layers.train().forward(pieces[:, :-1])
        found.append(loss.forward(scores, pieces[:, 1:]))  # stays on the device, so that no step waits
        network.layers.backward(loss.backward())
        clip_gradients(network.grads, 5.0)
        optimizer.update(network.params, network.grads)
        if step % tenth == 0:
            yield float(xp.stack(found).mean())
            found = []


def write(network: BoundLayers, start: list[int], characters: int, length: int) -> list[int]:
    """Return the indices of characters that the network writes behind ``start``; it sees the last ``length`` of all."""
    written = list(start)
    draws = asnumpy(random.uniform((characters,), "float64"))
    network.layers.eval()
    for draw in draws:
        seen = asarray(numpy.array([written[-length:]], "int32"))
        shares = asnumpy(softmax(network.layers.forward(seen)[:, -1]))[0].astype("float64").cumsum()
        written.append(int(numpy.searchsorted(shares, draw * shares[-1], side="right").clip(max=len(shares) - 1)))
    return written[len(start) :]


@click.command()
@option("--text", type=click.Path(path_type=Path, dir_okay=False), default=None, help="A text file in UTF-8.")
@option("--model", type=click.Choice([*CHARACTER_NETWORKS]), default="CharLSTM")
@option("--hidden", type=count, default=None, help="Units of the recurrent layer, or of a transformer's.")
@option("--steps", type=count, default=1000)
@option("--length", type=count, default=50, help="Characters that a step goes back through.")
@option("--write", "characters", type=count, default=300, help="Characters that the network writes.")
@device_option
def main(
    text: Path | None, model: str, hidden: int | None, steps: int, length: int, characters: int, device: str
) -> None:
    """Train a recurrent network, or a transformer, to write like a text."""
    prepare(device)
    with user_errors():
        content = default_text() if text is None else text.read_text("utf-8")
    if len(content) < length + 2 or len(set(content)) < 2:
        raise UserError(f"a text needs at least {length + 2} characters, two of them different, got {len(content):,}")
    random.seed(0)
    alphabet = Alphabet(content)
    sizes = {} if hidden is None else {"hidden": hidden}
    sizes |= {"longest": max(length, 1024)} if model == "CharTransformer" else {}
    network, codes = BoundLayers(CHARACTER_NETWORKS[model](len(alphabet), **sizes)), alphabet.encode(content)
    click.echo(f"{len(content):,} characters, {len(alphabet)} different: {numpy.log(len(alphabet)):.3f} by chance")
    for tenth, loss in enumerate(losses(network, asarray(codes), steps, length), 1):
        click.echo(f"{tenth * max(steps // 10, 1):>6} steps   loss {loss:.3f}")
    click.echo("\n" + alphabet.decode(write(network, codes[:1].tolist(), characters, length)))


if __name__ == "__main__":
    main()
