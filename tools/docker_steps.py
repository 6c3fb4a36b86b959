"""Runs the steps of the Dockerfile's CPU image without Docker, in a scratch folder.

Folders of the image (``/source``, ``/wheels``, ``/work``) are folders of the scratch folder, and
its Python is a new virtual environment. What only an image has (USER, ENTRYPOINT) is
not run. Usage: ``python tools/docker_steps.py [TARGET]``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: What the build context leaves out here, as ``.dockerignore`` does there.
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "models", "tests")


def stages(text: str) -> dict[str, list[tuple[str, str]]]:
    """The instructions of every stage, after those of the stage that it is built on."""
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    code = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(str.strip, code.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            origin, _, name = rest.partition(" AS ")
            current = found[name] = list(found.get(origin, ()))
        else:
            current.append((word, " ".join(rest.split())))
    return found


def needed(found: dict[str, list[tuple[str, str]]], target: str) -> list[str]:
    """The stages that a target copies from, in their order, and the target itself."""
    before: list[str] = []
    for word, rest in found[target]:
        if word == "COPY" and (match := re.match(r"--from=(\w+)", rest)):
            before += needed(found, match[1])
    return [*dict.fromkeys(before), target]


def run(target: str, scratch: Path) -> None:
    """Run the steps of a target and of the stages that it needs.

    Raises:
        subprocess.CalledProcessError: A step failed.
    """
    found = stages((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    for stage in needed(found, target):
        python = scratch / "python" / stage
        venv.create(python, with_pip=True)
        path = f"{python / 'bin'}{os.pathsep}{os.environ['PATH']}"
        folder = scratch
        for word, rest in found[stage]:
            here = re.sub(r"(?<![\w/.])/(?=source|wheels|work)", f"{scratch}/", rest)
            if word == "WORKDIR":
                folder = Path(here)
                folder.mkdir(exist_ok=True)
            elif word == "COPY" and rest == ". .":
                shutil.copytree(ROOT, folder, dirs_exist_ok=True, ignore=LEFT_OUT)
            elif word == "RUN":
                print(f"{stage}: {rest}", flush=True)
                environment = {**os.environ, "PATH": path}
                subprocess.run(here, shell=True, check=True, cwd=folder, env=environment)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        run(sys.argv[1] if len(sys.argv) > 1 else "cpu", Path(name))
