"""What all commands share: sections of the help, suggestions, defaults that are set elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from .defaults import config_option, report_defaults
from .suggestion import suggestion

#: Sections of the help, and the options in them; others stand at the end.
SECTIONS = {
    "Input": (
        *("--input", "--text", "--chat", "--pair", "--windows", "--columns", "--tokenizer"),
        *("--bind", "--masks", "--shard"),
    ),
    "Target": (
        *("--target", "--head", "--output", "--explain-input", "--generate", "--continuation"),
        "--start",
    ),
    "Method": ("--method", "--positions", "--role"),
    "Output": ("-o", "--format", "--tensors", "--open", "--fail-on", "--parquet", "--pictures"),
}
_LAST = "Run"
#: With fewer options one list is easier to read.
_MANY = 10


class Command(click.Command):
    """A command whose options are listed in sections, with defaults from a file and variables."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.params.append(config_option())

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; with ``-v``, say first which defaults were set elsewhere."""
        report_defaults(ctx)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        if len(options) < _MANY:
            super().format_options(ctx, formatter)
            return
        for title, chosen in sections(options).items():
            with formatter.section(title):
                formatter.write_dl(filter(None, (each.get_help_record(ctx) for each in chosen)))


def sections(options: list[click.Option]) -> dict[str, list[click.Option]]:
    """The options of every section that has any, in the order of `SECTIONS`."""
    place = {name: title for title, names in SECTIONS.items() for name in names}
    found: dict[str, list[click.Option]] = {title: [] for title in (*SECTIONS, _LAST)}
    for option in options:
        titles = (place[name] for name in option.opts if name in place)
        found[next(titles, _LAST)].append(option)
    return {title: chosen for title, chosen in found.items() if chosen}


class Group(click.Group):
    """A group of such commands, which suggests a name for one that it does not have."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that ``args`` begin with."""
        names, name = self.list_commands(ctx), args[0]
        if name in names or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        raise click.UsageError(f"There is no command {name!r}.{suggestion(name, names)}", ctx)


#: ``click.command`` for such a command.
command: Callable[..., Callable[[Callable[..., Any]], Command]] = partial(
    click.command, cls=Command
)
