"""Defaults of options that a file or variables of the environment set.

What is given on the command line wins over a variable, a variable over the file, and the file over
the default of the option.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .suggestion import suggestion

FILE = "palrp-onnx.toml"
_PREFIX = "PALRP_ONNX_"
#: Where the origins of defaults are kept, from parsing to running.
_ORIGINS = "palrp_onnx.origins"


def config_option() -> click.Option:
    """``--config``, which is read before all other options."""
    return click.Option(
        ["--config"],
        type=click.Path(path_type=Path),
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_set_defaults,
        envvar=f"{_PREFIX}CONFIG",
        help=f"Defaults of options, by default those in ./{FILE}.",
    )


def _set_defaults(ctx: click.Context, _param: click.Parameter, file: Path | None) -> None:
    """Hand click the defaults, and remember where each is from."""
    if ctx.resilient_parsing:  # the shell completes a command line
        return
    known = settable(ctx.command)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, key, value in (*_of_file(ctx, file), *_of_variables(ctx)):
        if (option := known.get(key)) is not None and option.name is not None:
            values[option.name] = _valid(ctx, option, value, origin)
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            origins[option.name] = f"{origin}: --{key} {shown}"
    ctx.default_map = values
    ctx.meta[_ORIGINS] = origins


def report_defaults(ctx: click.Context) -> None:
    """With ``-v``, name every default that was set elsewhere and is used."""
    if ctx.params.get("verbose"):
        for name, origin in ctx.meta.get(_ORIGINS, {}).items():
            if ctx.get_parameter_source(name) is ParameterSource.DEFAULT_MAP:
                click.echo(f"default from {origin}", err=True)


def settable(command: click.Command) -> dict[str, click.Option]:
    """The options of a command that can have a default, by their long names without dashes."""
    options = (each for each in command.params if isinstance(each, click.Option))
    return {max(o.opts, key=len).lstrip("-"): o for o in options if o.expose_value}


def _valid(ctx: click.Context, option: click.Option, value: Any, origin: str) -> Any:
    """The value for click: a list where the option can be given several times."""
    values = value if option.multiple and isinstance(value, list) else [value]
    if not all(isinstance(each, (str, int, float)) for each in values):
        raise click.UsageError(f"{origin}: {option.opts[0]} cannot be {value!r}", ctx)
    return values if option.multiple else value


def _of_file(ctx: click.Context, file: Path | None) -> Iterator[tuple[str, str, Any]]:
    """Origin, key and value of every default in the file: those for all commands come first."""
    if file is None and not Path(FILE).is_file():
        return
    path = file or Path(FILE)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise click.UsageError(f"{path} cannot be read: {reason}", ctx) from error
    _check(ctx, path, table, ctx.find_root().command)
    levels = [table]
    for name in _names(ctx):
        levels.append(levels[-1].get(name, {}))
    for level in levels:
        own = ((key, value) for key, value in level.items() if not isinstance(value, Mapping))
        yield from ((str(path), key, value) for key, value in own)


def _names(ctx: click.Context) -> list[str]:
    """The command as it is called after the program: ``evaluate``, ``pixels``."""
    if ctx.parent is None:
        return []
    return [*_names(ctx.parent), ctx.info_name or ""]


def _check(
    ctx: click.Context, path: Path, table: Mapping[str, Any], command: click.Command
) -> None:
    """Refuse a key that is no option, and a table that is no command."""
    inner = _commands(ctx, command)
    known = _all_settable(ctx, command)
    for key, value in table.items():
        if isinstance(value, Mapping):
            if key not in inner:
                raise _unknown(ctx, f"{path}: [{key}] is no command", key, inner)
            _check(ctx, path, value, inner[key])
        elif key not in known:
            raise _unknown(ctx, f"{path}: {key!r} is no option", key, known)


def _unknown(
    ctx: click.Context, message: str, key: str, known: Mapping[str, object]
) -> click.UsageError:
    return click.UsageError(f"{message}.{suggestion(key, list(known))}", ctx)


def _commands(ctx: click.Context, command: click.Command) -> dict[str, click.Command]:
    if not isinstance(command, click.Group):
        return {}
    found = {name: command.get_command(ctx, name) for name in command.list_commands(ctx)}
    return {name: each for name, each in found.items() if each is not None}


def _all_settable(ctx: click.Context, command: click.Command) -> dict[str, click.Option]:
    """Options that can be set for a command, or for any command of a group."""
    inner = (_all_settable(ctx, each) for each in _commands(ctx, command).values())
    return {key: option for known in (settable(command), *inner) for key, option in known.items()}


def _of_variables(ctx: click.Context) -> Iterator[tuple[str, str, Any]]:
    """The same of variables: ``PALRP_ONNX_METHOD``, then ``PALRP_ONNX_BATCH__METHOD``.

    A variable that is no option is left alone: platforms set variables after the name of a service.
    """
    names = _names(ctx)
    for count in range(len(names) + 1):
        for key, option in settable(ctx.command).items():
            variable = _PREFIX + "__".join((*names[:count], key)).replace("-", "_").upper()
            if text := os.environ.get(variable):
                yield (
                    variable,
                    key,
                    option.type.split_envvar_value(text) if option.multiple else text,
                )
