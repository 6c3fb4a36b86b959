"""Renders a chat template, in a process of its own: a template is data from a stranger.

Run as a script: ``python chat_process.py < request.json``. The request holds the template and its
variables; the answer on stdout is ``{"text": …}`` or ``{"error": …}``. Jinja's sandbox keeps the
template from everything but its variables, and the limits of the process bound its time and memory.
"""

from __future__ import annotations

import datetime
import json
import sys
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

#: Limits of the process: seconds, and bytes of memory.
SECONDS, BYTES = 10, 1 << 30


class Marked(Extension):
    """``{% generation %}``, which marks answers for training, renders what it contains."""

    tags = {"generation"}  # noqa: RUF012 - a constant of the class

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The nodes inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(template: str, variables: dict[str, Any]) -> str:
    """The text that a template makes of its variables, with what Transformers gives templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Marked]
    )
    environment.filters["tojson"] = _json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment.from_string(template).render(**variables)


def _json(value: Any, **options: Any) -> str:
    return json.dumps(value, **{"ensure_ascii": False, **options})


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _limit() -> None:
    try:
        import resource
    except ImportError:  # no such limits on Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


def main() -> None:
    """Answer the request on stdin."""
    request = json.load(sys.stdin)
    _limit()
    try:
        answer = {"text": render(request["template"], request["variables"])}
    except Exception as error:  # templates raise what they like
        answer = {"error": f"{type(error).__name__}: {error}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
