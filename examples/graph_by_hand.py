"""Work a computational graph by hand: the shopping of *Deep Learning from Scratch*, chapter 5.

Every product and every sum is a node. Forward carries prices from the fruit to the total; backward carries the
derivative of the total back to each input: 2.2 for the price of an apple.

    python -m examples.graph_by_hand
"""

from __future__ import annotations

import click

from backend import xp
from layers import AddLayer, MulLayer
from training.cli.common import choose_compute, device_option

TEXT_APPLES = {"price": 220, "d apple": 2.2, "d number of apples": 110, "d tax": 200}
TEXT_FRUIT = {
    "price": 715,
    "d number of apples": 110,
    "d apple": 2.2,
    "d orange": 3.3,
    "d number of oranges": 165,
    "d tax": 650,
}


def apples() -> dict[str, float]:
    """Return the price of two apples at 100 with 10 % tax, and its derivative by each input."""
    apple, number, tax = (xp.asarray(value) for value in (100.0, 2.0, 1.1))
    times_number, times_tax = MulLayer(), MulLayer()

    price = times_tax.forward(times_number.forward(apple, number), tax)

    d_untaxed, d_tax = times_tax.backward(1.0)
    d_apple, d_number = times_number.backward(d_untaxed)
    found = {"price": price, "d apple": d_apple, "d number of apples": d_number, "d tax": d_tax}
    return {name: float(value) for name, value in found.items()}


def apples_and_oranges() -> dict[str, float]:
    """Return the price of two apples at 100 and three oranges at 150 with 10 % tax, and its derivative by each
    input."""
    apple, apples, orange, oranges, tax = (xp.asarray(value) for value in (100.0, 2.0, 150.0, 3.0, 1.1))
    times_apples, times_oranges, together, times_tax = MulLayer(), MulLayer(), AddLayer(), MulLayer()

    apple_price = times_apples.forward(apple, apples)
    orange_price = times_oranges.forward(orange, oranges)
    price = times_tax.forward(together.forward(apple_price, orange_price), tax)

    d_untaxed, d_tax = times_tax.backward(1.0)
    d_apple_price, d_orange_price = together.backward(d_untaxed)
    d_orange, d_oranges = times_oranges.backward(d_orange_price)
    d_apple, d_apples = times_apples.backward(d_apple_price)
    found = {
        "price": price,
        "d number of apples": d_apples,
        "d apple": d_apple,
        "d orange": d_orange,
        "d number of oranges": d_oranges,
        "d tax": d_tax,
    }
    return {name: float(value) for name, value in found.items()}


@click.command()
@device_option
def main(device: str) -> None:
    """Compute two shopping bills and their derivatives node by node."""
    choose_compute(device, None)
    for title, ours, text in (
        ("2 apples at 100, tax 1.1", apples(), TEXT_APPLES),
        ("2 apples at 100, 3 oranges at 150, tax 1.1", apples_and_oranges(), TEXT_FRUIT),
    ):
        click.echo(f"{title}\n  {'':20}{'ours':>8}{'text':>8}")
        for name, value in ours.items():
            click.echo(f"  {name:20}{value:8.7g}{text[name]:8.7g}")


if __name__ == "__main__":
    main()
