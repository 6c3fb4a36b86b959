"""A child process of ``neighbours.py``: opens one explainer and explains on request of its parent.

    python CHILD MODEL INPUT VARIANT OUT [--once]

The map of the first explanation is written to OUT as a JSON list. With ``--once`` the child
then ends. Otherwise it writes one line of JSON to stdout when it is ready, and one for every line
that it reads from stdin: the times of a further explanation. At the end of stdin it writes a last
line with its peak memory. Needs only the standard library, as it is imported in every environment.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

Explain = Callable[[], list[float]]


def main(opening: Callable[[Path, Path, str], Explain], packages: Sequence[str]) -> None:
    """Command line of a child.

    Args:
        opening: Model, input and variant → a function that explains once.
        packages: Packages whose versions are reported.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("input", type=Path)
    parser.add_argument("variant")
    parser.add_argument("out", type=Path)
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args()
    # Output of libraries must not be mixed with the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    explain = opening(options.model, options.input, options.variant)
    options.out.write_text(json.dumps(explain()))
    if options.once:
        return
    print(json.dumps({name: version(name) for name in packages}), file=answers)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        explain()
        taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps(taken), file=answers)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"peak": peak / 1024}), file=answers)
