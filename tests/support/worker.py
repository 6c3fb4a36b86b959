"""The inside of the box: reads tasks from stdin, one JSON list a line, and answers on stdout."""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def open_model(path: str) -> None:
    """Everything that is done to a file before it is run."""
    from palrp_onnx import Model

    Model.open(Path(path))


def open_explainer(path: str) -> None:
    """Open, make an example, analyse, plan, compile and run."""
    from palrp_onnx import Explainer
    from palrp_onnx.prepare import make_example

    explainer = Explainer(Path(path), once=True)
    explainer.engine(make_example(explainer.model))


def run_program(*arguments: str) -> None:
    """The command line, as users call it."""
    from palrp_onnx.cli.main import program

    program.main(list(arguments))


TASKS: dict[str, Callable[..., None]] = {
    "model": open_model,
    "explainer": open_explainer,
    "cli": run_program,
}


def attempt(task: str, *arguments: str) -> int:
    """Exit code of a task; an exception without a code is written to stderr."""
    from palrp_onnx.errors import PalrpError

    try:
        TASKS[task](*arguments)
    except PalrpError as error:
        return error.exit_code
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0
    except MemoryError:
        return 7
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Answer until there are no more tasks."""
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryFile() as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        for line in sys.stdin:
            output.seek(0)
            output.truncate()
            code = attempt(*json.loads(line))
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            output.seek(0)
            print(json.dumps([code, output.read(100_000).decode(errors="replace")]), file=answers)
            answers.flush()


if __name__ == "__main__":
    main()
