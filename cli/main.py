"""The program: commands are imported when needed, and exit codes are set in one place."""

from __future__ import annotations

import importlib
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import click

from palrp_onnx.errors import PalrpError, ResourceError, UsageError, is_lack_of_memory
from palrp_onnx.files import refusal
from palrp_onnx.printable import printable

from .command import Group
from .late import import_late
from .writing import close_stdout, open_closed_streams

_COMMANDS = (
    *("batch", "cache", "compare", "compile", "evaluate", "explain", "export", "inspect", "report"),
    *("schema", "serve"),
)
_BUG = 1
_INTERRUPTED = 130


@dataclass
class State:
    """State that is needed after a command has failed.

    Attributes:
        arguments: The command line.
        verbose: Whether ``-v`` was given.
        resumable: Whether the same command with ``--resume`` goes on with what was interrupted.
    """

    arguments: list[str]
    verbose: bool = False
    resumable: bool = False


class Program(Group):
    """A group whose commands are imported by name; ``main`` turns outcomes into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command."""
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(f"{__package__}.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the command line; help and version are printed here."""
        with _closed_pipe_is_fine():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        _keep_logs_off_the_terminal()
        with _closed_pipe_is_fine():
            return super().invoke(ctx)

    def main(  # type: ignore[override]  # click's overloads allow a return; this never returns
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run and exit with the documented code."""
        open_closed_streams()
        args = sys.argv[1:] if args is None else list(args)
        state = State(args)
        extra["standalone_mode"] = False
        try:
            result = super().main(args, prog_name, obj=state, **extra)
        except BaseException as failure:
            sys.exit(_report(failure, state))
        sys.exit(result if isinstance(result, int) else 0)


@contextmanager
def _closed_pipe_is_fine() -> Iterator[None]:
    """A closed pipe, as in ``palrp-onnx --help | head -1``, is no failure, but is one for click."""
    try:
        yield
    except BrokenPipeError:
        close_stdout()
        raise click.exceptions.Exit(0) from None


def _keep_logs_off_the_terminal() -> None:
    """Without a handler, Python writes the logs of libraries to stderr, tracebacks included."""
    import logging  # imported here to keep --help fast

    logging.getLogger("onnx_ir").addHandler(logging.NullHandler())


def _report(failure: BaseException, state: State) -> int:
    """Report an error on stderr; returns the exit code."""
    match failure:
        case _ if is_lack_of_memory(failure):
            return _print_error(_out_of_memory())
        case SystemExit():
            return failure.code if isinstance(failure.code, int) else 0
        case click.exceptions.Abort() | KeyboardInterrupt():
            click.echo("interrupted", err=True)
            if state.resumable:
                given = [each for each in state.arguments if each != "--resume"]
                resumed = shlex.join(["palrp-onnx", *given, "--resume"])
                click.echo(f"  to go on: {resumed}", err=True)
            return _INTERRUPTED
        case click.exceptions.NoArgsIsHelpError():
            failure.show()
            return failure.exit_code
        case click.ClickException():
            return _print_error(_usage(failure))
        case PalrpError():
            return _print_error(failure)
        case OSError(filename=str() as place):
            return _print_error(refusal(failure, place, "Cannot read or write"))
        case OSError(errno=int()):  # a stream, not a file
            close_stdout()
            return _print_error(refusal(failure, "stdout"))
    if state.verbose:
        traceback.print_exception(failure)
    detail = printable(" ".join(str(failure).split()))
    again = "" if state.verbose else " (-v shows the traceback)"
    click.echo(f"error[bug]: {type(failure).__name__}: {detail}{again}", err=True)
    return _BUG


def _out_of_memory() -> ResourceError:
    return ResourceError(
        "Out of memory", hint="Use --memory bounded, a shorter input or fewer rows."
    )


def _usage(failure: click.ClickException) -> UsageError:
    """An error of click in the form of all others."""
    context = getattr(failure, "ctx", None)
    hint = f"See {context.command_path} --help." if context is not None else ""
    return UsageError(failure.format_message().removesuffix("."), hint=hint)


def _print_error(error: PalrpError) -> int:
    click.echo(f"error[{error.code}]: {printable(error.message)}", err=True)
    if error.place:
        click.echo(f"  at: {printable(error.place)}", err=True)
    if error.hint:
        click.echo(f"  hint: {printable(error.hint)}", err=True)
    return error.exit_code


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 fine, 1 bug, 2 usage, 3 bad input, 4 the model cannot be explained as "
    "asked, 5 a check failed, 6 some records of a batch failed, 7 resources, 130 interrupted.",
)
@click.version_option(package_name="palrp-onnx", message="%(prog)s %(version)s")
def program() -> None:
    """Explain exported ONNX Transformers with Positional-Aware LRP.

    Results go to stdout or to files; everything else goes to stderr.
    """


def main() -> NoReturn:
    """Entry point of ``palrp-onnx``."""
    import_late()
    program.main(prog_name="palrp-onnx")
