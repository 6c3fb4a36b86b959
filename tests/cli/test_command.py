"""Sections of the help, suggestions, completion, and the form of usage errors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import click
import pytest
from click.testing import Result

from palrp_onnx.cli.command import SECTIONS, sections
from palrp_onnx.cli.main import program

pytestmark = pytest.mark.quick

Run = Callable[..., Result]


def options(name: str) -> list[click.Option]:
    command = program.get_command(click.Context(program), name)
    assert command is not None
    return [each for each in command.params if isinstance(each, click.Option)]


def test_options_of_explain_stand_in_sections(run: Run) -> None:
    found = {t: [o.opts[0] for o in chosen] for t, chosen in sections(options("explain")).items()}
    assert list(found) == [*SECTIONS, "Run"]
    running = "--engine --dtype --device --memory --no-cache -q -v --config".split()
    assert sorted(found["Run"]) == sorted(running)
    shown = run("explain", "--help").stdout
    places = [shown.index(f"\n{title}:\n") for title in found]
    assert places == sorted(places)


def test_sections_name_options_that_exist() -> None:
    known = {name for each in program.list_commands(click.Context(program)) for name in _of(each)}
    assert {name for names in SECTIONS.values() for name in names} <= known


def _of(name: str) -> set[str]:
    command = program.get_command(click.Context(program), name)
    inner = command.commands.values() if isinstance(command, click.Group) else [command]
    return {name for each in inner if each for parameter in each.params for name in parameter.opts}


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["explian"], "There is no command 'explian'. Did you mean 'explain'?", "program"),
        (
            ["evaluate", "pixel"],
            "no command 'pixel'. Did you mean 'pixels'?",
            "program evaluate",
        ),
        (["qwertz"], "There is no command 'qwertz'\n", "program"),
        (["explain"], "Missing argument 'MODEL'\n", "program explain"),
        (["explain", "--txet"], "No such option '--txet'", "program explain"),
        (["explain", "m", "--device", "gpu"], "'gpu' is not cpu, cuda", "program explain"),
    ],
)
def test_usage_errors_have_the_form_of_all_errors(
    run: Run, arguments: list[str], message: str, hint: str
) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error[usage]: ")
    assert message in result.stderr
    assert result.stderr.endswith(f"\n  hint: See {hint} --help.\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell: str) -> None:
    code = "from palrp_onnx.cli.main import main; main()"
    environment = {**os.environ, "_PALRP_ONNX_COMPLETE": f"{shell}_source"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert (done.returncode, b"_PALRP_ONNX_COMPLETE" in done.stdout) == (0, True), done.stderr


def test_completion_offers_options() -> None:
    code = "from palrp_onnx.cli.main import main; main()"
    words = {"COMP_WORDS": "palrp-onnx explain --meth", "COMP_CWORD": "2"}
    environment = {**os.environ, **words, "_PALRP_ONNX_COMPLETE": "bash_complete"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert b"--method" in done.stdout, done.stderr
