"""Options of a command from a file, by ``--config``, and by name, by ``--set``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from training.cli.common import UserError, in_words, user_errors
from training.cli.nearest import nearest
from training.files import clipped, toml_text
from training.files.opening import stored_path

FILE = "config.toml"
"""The file of a run's folder that holds its settings."""

_OPTIONS = (
    click.Option(
        ["--config"],
        type=click.Path(path_type=Path),
        expose_value=False,
        metavar="FILE",
        help="Read options from a TOML file, as in: batch_size = 100. That of a run, RUN/config.toml, repeats the run. "
        "The command line and environment variables take precedence.",
    ),
    click.Option(
        ["--set"],
        multiple=True,
        expose_value=False,
        metavar="KEY=VALUE",
        help="The same as --KEY VALUE. KEY= drops what the file says.",
    ),
)
_NOT_IN_FILES = ("config", "set", "resume", "find_lr")


class Configured(click.Command):
    """A command with ``--config`` and ``--set``.

    A name in a file is that of an option: ``batch_size`` or ``batch-size``. Values are checked as they are read, so
    that an error names the file.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.params += _OPTIONS

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = {} if ctx.resilient_parsing else self.make_parser(ctx).parse_args(args=list(args))[0]
        if getattr(self.get_help_option(ctx), "name", None) not in given:
            with user_errors():
                if "config" in given and "resume" in given:
                    raise UserError("--config conflicts with --resume: a run keeps its settings")
                values = _read(self, ctx, Path(given["config"])) if "config" in given else {}
                more = [_argument(self, ctx, text, values) for text in given.get("set", ())]
            ctx.default_map = values
            args = [*(argument for argument in more if argument), *args]
        return super().parse_args(ctx, args)


def keys(command: click.Command) -> dict[str, click.Option]:
    """Return the options of a command that a file may give, by their names there."""
    options = {_key(option): option for option in command.params if isinstance(option, click.Option)}
    return {key: option for key, option in options.items() if key not in _NOT_IN_FILES}


def check_value(command: click.Command, name: str, value: Any) -> str:
    """Return the name of a command's option if a value from a file is right for it.

    Raises:
        ValueError: it is not, or there is no such option.
    """
    try:
        option = _find(command, name, "")
    except UserError as error:
        raise ValueError(error.message) from error
    _checked(option, value, click.Context(command))
    return _key(option)


def dump(config: Mapping[str, Any]) -> bytes:
    """Return the settings, device and threads that a run's ``config.json`` holds as a file for ``--config``."""
    return toml_text.dump(
        {**config["settings"], "device": config["device"].get("name"), "threads": config.get("threads")}
    )


def _key(option: click.Option) -> str:
    return max(option.opts, key=len).lstrip("-").replace("-", "_")


def _read(command: click.Command, ctx: click.Context, path: Path) -> dict[str, Any]:
    """Return the values of a file by the names of the command's parameters."""
    file = path / FILE if path.is_dir() else path
    values: dict[str, Any] = {}
    for key, value in toml_text.read(file).items():
        option = _find(command, key, f"{file}: ")
        name = str(option.name)
        if name in values:
            raise UserError(f"{file}: {clipped(key)} is given twice")
        try:
            values[name] = _checked(option, value, ctx)
        except ValueError as error:
            raise UserError(f"{file}: {in_words(error)}") from error
    return values


def _find(command: click.Command, key: str, where: str) -> click.Option:
    """Return the option of a name, or fail with the nearest name."""
    known = keys(command)
    option = known.get(key.replace("-", "_"))
    if option is None:
        near = nearest(key.replace("-", "_"), known)
        remedy = f"did you mean {near}?" if near else f"xpnet {command.name} --help lists the options"
        raise UserError(f"{where}unknown name {clipped(key)}: {remedy}")
    return option


def _checked(option: click.Option, value: Any, ctx: click.Context) -> Any:
    """Return a value from a file if it is of the option's kind and within its bounds.

    Raises:
        ValueError: it is not; the message begins with the option's name.
    """
    try:
        if option.multiple:
            return [_one(option, each, ctx) for each in (value if isinstance(value, list) else [value])]
        return _one(option, value, ctx)
    except (ValueError, click.BadParameter) as error:
        said = error.message.rstrip(".") if isinstance(error, click.BadParameter) else in_words(error)
        raise ValueError(f"{_key(option)}: {said}") from error


def _one(option: click.Option, value: Any, ctx: click.Context) -> Any:
    expected, kinds = _expected(option.type)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds != (bool,)):
        got = str(value).lower() if isinstance(value, bool) else clipped(value)
        raise ValueError(f"expected {expected}, got {got}")
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"expected {expected} without the character NUL, got {clipped(value)}")
    value = str(value) if str in kinds else value
    value = stored_path(value) if isinstance(option.type, click.Path) else value
    option.type.convert(value, option, ctx)
    return value


def _expected(kind: click.ParamType) -> tuple[str, tuple[type, ...]]:
    """Return what a file has to hold for an option's type, in words and as Python's types."""
    if isinstance(kind, type(click.BOOL)):
        return "true or false", (bool,)
    if isinstance(kind, type(click.FLOAT)):
        return "a number", (int, float)
    if isinstance(kind, type(click.INT)):
        return "a whole number", (int,)
    if isinstance(kind, (click.Path, click.Choice, type(click.STRING))):
        return "a text in quotes", (str,)
    return "a text in quotes or a whole number", (str, int)  # an interval as in 5m or 200, a size as in 48x64 or 64


def _argument(command: click.Command, ctx: click.Context, text: str, values: dict[str, Any]) -> str:
    """Return an argument of ``--set`` as one of the option that it names; empty where that is to have no value.

    ``values`` are those of the file: the option's is removed.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {clipped(text)}: expected KEY=VALUE, as in batch_size=100")
    option = _find(command, key.strip(), f"--set {clipped(text)}: ")
    values.pop(str(option.name), None)
    if not value.strip():
        return ""
    if not option.is_flag:
        return f"{option.opts[0]}={value.strip()}"
    try:
        is_on = click.BOOL.convert(value, option, ctx)
    except click.BadParameter:
        raise UserError(f"--set {clipped(text)}: expected true or false, got {clipped(value)}") from None
    return option.opts[0] if is_on else option.secondary_opts[0] if option.secondary_opts else ""
