"""Runs the notebooks, and stores what they show: ``python docs/run_notebooks.py [NAME …]``.

They use the committed models alone. Needs nbclient and ipykernel, of the extra ``dev``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent / "notebooks"
#: Seconds that a cell may take.
TIMEOUT = 120


def run(path: Path) -> nbformat.NotebookNode:
    """The notebook with what a fresh kernel in its folder shows.

    Raises:
        CellExecutionError: A cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
    )
    return client.execute()


def main(names: list[str]) -> None:
    """Run and store all notebooks, or those of these names."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        if not names or path.stem in names:
            nbformat.write(run(path), path)
            print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
