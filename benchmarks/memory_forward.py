"""Child of ``memory.py``: one forward pass in ONNX Runtime; prints its time like a record."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
feeds = dict(np.load(sys.argv[2]))
start = time.perf_counter()
session.run(None, feeds)
print(json.dumps({"run": {"ms": {"session": (time.perf_counter() - start) * 1e3}}}))
