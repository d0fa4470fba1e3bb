"""Standard streams that fail."""

import io
import sys

import click

from training.cli import streams


class Broken(io.StringIO):
    """A stream that takes so many pieces of text."""

    def __init__(self, pieces):
        super().__init__()
        self.left = pieces

    def write(self, text):
        if text and self.left == 0:
            raise OSError(28, "No space left on device")
        self.left -= bool(text)
        return super().write(text)


def test_printing_goes_on_silently_and_the_stream_comes_back(monkeypatch):
    out, err = Broken(1), Broken(10)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with streams.going_on_silently():
        for number in range(3):
            click.echo(number)
            click.echo(number, err=True)
            print("more", file=sys.stdout, flush=True)
    assert out.getvalue() == "0\n"
    assert err.getvalue() == "0\n1\n2\n"
    assert (sys.stdout, sys.stderr) == (out, err)


def test_a_closed_stream_is_silent(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    out.close()
    with streams.going_on_silently():
        click.echo("text")


def test_letters_that_an_encoding_lacks_are_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with streams.going_on_silently():
        click.echo("café")
        click.echo("more")
    assert raw.getvalue() == b"caf\\xe9\nmore\n"
