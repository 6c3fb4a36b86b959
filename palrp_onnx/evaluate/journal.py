"""What an evaluation has done so far, so that it goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.evaluate.perturbation import Curves, Steps

Array = NDArray[Any]


class Journal:
    """Curves of every sample that is done, one JSON object a line, appended at once.

    Args:
        path: Where they are kept.
        settings: Everything that the numbers depend on; the first line of the file.

    Raises:
        UsageError: The file was written with other settings.
        InputError: It holds something else.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self._known: dict[str, dict[str, Curves]] = {}
        own = json.dumps(settings, sort_keys=True)
        if not path.exists() or not path.stat().st_size:
            path.write_text(own + "\n", "utf-8")
            return
        text = path.read_text("utf-8")
        first, *lines = text.splitlines()
        if first != own:
            raise UsageError(
                "The evaluation was begun with other settings",
                place=str(path),
                hint="Use the same ones, or another file.",
            )
        if not text.endswith("\n"):  # the line that was being written when it was stopped
            kept = text[: text.rindex("\n") + 1]
            path.write_text(kept, "utf-8")
            lines = lines[:-1]
        for line in lines:
            self._read(line)

    def __getitem__(self, name: str) -> dict[str, Curves] | None:
        """Curves of a sample by method, if it is done."""
        return self._known.get(name)

    def add(self, name: str, curves: Mapping[str, Curves]) -> None:
        """Keep the curves of a sample."""
        self._known[name] = dict(curves)
        data = {method: _plain(each) for method, each in curves.items()}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"id": name, "curves": data}) + "\n")

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            found = {method: _curves(each) for method, each in entry["curves"].items()}
            self._known[entry["id"]] = found
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError("The file holds no evaluation", place=str(self._path)) from error


def _plain(curves: Curves) -> dict[str, dict[str, list[float]]]:
    return {
        order: {what: numbers.tolist() for what, numbers in vars(steps).items()}
        for order, steps in vars(curves).items()
    }


def _curves(data: Mapping[str, Mapping[str, list[float]]]) -> Curves:
    return Curves(**{order: Steps(**_arrays(steps)) for order, steps in data.items()})


def _arrays(steps: Mapping[str, list[float]]) -> dict[str, Array]:
    return {what: np.asarray(numbers, np.float64) for what, numbers in steps.items()}
