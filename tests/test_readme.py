"""What README and docs/cli.md say exists; ``.ci/run`` runs two commands as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from committed import ROOT

from palrp_onnx import errors
from palrp_onnx.cli.main import program

pytestmark = pytest.mark.quick

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def test_two_marked_commands_of_one_line() -> None:
    marked = re.findall(r"^<!-- ci -->\n```console\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert [block.count("\n") for block in marked] == [1, 1]
    assert marked[1].endswith("pytest -n 2\n")


def test_every_option_is_explained() -> None:
    names = ("explain", "compile", "batch", "report", "compare", "inspect")
    commands = (program.get_command(click.Context(program), name) for name in names)
    known = {name for c in commands if c for parameter in c.params for name in parameter.opts}
    mentioned = set(re.findall(r"`(--[a-z-]+)", README + COMMANDS))
    assert mentioned <= known, mentioned - known
    of_explain = program.get_command(click.Context(program), "explain")
    assert of_explain is not None
    own = {name for each in of_explain.params for name in each.opts if name.startswith("--")}
    assert own - mentioned == {"--quiet", "--verbose"}


def test_exit_codes() -> None:
    def below(kind: type[errors.PalrpError]) -> set[int]:
        return {kind.exit_code}.union(*map(below, kind.__subclasses__()))

    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", COMMANDS, re.MULTILINE)}
    assert below(errors.PalrpError) <= documented
    assert {0, 130} <= documented


def test_python_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("POSITIVE 0.9")
    assert (tmp_path / "map.html").exists()


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
