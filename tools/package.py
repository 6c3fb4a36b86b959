"""Builds the distributions into ``dist`` and tries them: ``python tools/package.py [PYTHON …]``.

The source distribution must hold every file of the repository, the wheel is built from it, and
both pass ``twine check --strict``. Then the wheel is installed into an empty environment of every
given Python, by default this one, where it explains a text outside of the repository.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
#: Files for work in a clone.
IN_CLONES = {".gitignore"}


def run(*command: object, folder: Path = ROOT) -> str:
    """Run a command, and return what it prints."""
    words = list(map(str, command))
    done = subprocess.run(words, check=True, cwd=folder, stdout=subprocess.PIPE, text=True)
    return done.stdout


def build() -> tuple[Path, Path]:
    """The source distribution, and the wheel that is built from it."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST)
    (source,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    print(run(sys.executable, "-m", "twine", "check", "--strict", source, wheel))
    return source, wheel


def missing(source: Path) -> list[str]:
    """Files of the repository that the source distribution lacks."""
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    return sorted({*run("git", "ls-files").splitlines()} - held - IN_CLONES)


def use(wheel: Path, python: str) -> None:
    """Install the wheel into an empty environment, and explain a text with it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(python, "-m", "venv", folder / "env")
        run(folder / "env/bin/pip", "install", "-q", f"{wheel}[cpu]")
        program, model = folder / "env/bin/palrp-onnx", ROOT / "models/reviews-rope"
        text = "A gripping, beautifully acted drama."
        run(program, "explain", model, "--text", text, "-o", folder / "out", folder=folder)
        assert {each.name for each in (folder / "out").iterdir()} == {"text.json", "text.png"}
        print(f"{run(program, '--version').strip()} works on {run(python, '--version').strip()}")


if __name__ == "__main__":
    source, wheel = build()
    if lacking := missing(source):
        sys.exit(f"The source distribution lacks {', '.join(lacking)}")
    for python in sys.argv[1:] or [sys.executable]:
        use(wheel, python)
