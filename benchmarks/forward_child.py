"""Child of ``neighbours.py``: a plain ONNX Runtime session, forward only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import serving


def opening(model: Path, source: Path, _: str) -> serving.Explain:
    """A function for the logits, which take the place of a map."""
    session = onnxruntime.InferenceSession(str(model))
    feeds = dict(np.load(source))

    def explain() -> list[float]:
        logits: list[float] = session.run(None, feeds)[0].ravel().tolist()
        return logits

    return explain


if __name__ == "__main__":
    serving.main(opening, ["onnxruntime"])
