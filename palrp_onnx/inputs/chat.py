"""A conversation as the text that a model was trained on: through the tokenizer's chat template."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.reading import read_bytes, read_optional_json
from palrp_onnx.inputs.text import TEXT_LIMIT, decode_text
from palrp_onnx.inputs.tokenizer_files import CONFIG, SPECIAL, read_config, token_of, tokenizer_file

#: The template in a file of its own, which newer versions of Transformers write.
TEMPLATE = "chat_template.jinja"
_MESSAGES = 'a JSON array such as [{"role": "user", "content": "…"}]'


def read_chat(path: Path, tokenizer: Path) -> str:
    """The text that the tokenizer's template makes of the messages in a file.

    If the last message is not an answer, the beginning of an answer follows it.

    Args:
        path: A JSON array of messages, each with ``role`` and ``content``, or an object with the
            key ``messages`` and further variables of the template, such as ``tools``.
        tokenizer: The tokenizer, a file or a folder.

    Raises:
        InputError: The file holds no messages, the tokenizer has no template, or the template
            refuses them or does not end.
    """
    return render_chat(read_messages(path), tokenizer, place=str(path))


def render_chat(messages: Any, tokenizer: Path, *, place: str) -> str:
    """The text that the tokenizer's template makes of messages, as `read_chat` does.

    Args:
        messages: What such a file holds.
        tokenizer: The tokenizer, a file or a folder.
        place: Where the messages come from, for errors.

    Raises:
        InputError: As `read_chat`.
    """
    variables = _checked(messages, place)
    file = tokenizer_file(tokenizer)
    last = variables["messages"][-1].get("role")
    own = {**read_optional_json(file.with_name(SPECIAL)), **read_config(file)}
    tokens = {key: text for key, value in own.items() if (text := token_of(value)) is not None}
    known = {"tools": None, "documents": None, "add_generation_prompt": last != "assistant"}
    return _render(_template(file), {**tokens, **known, **variables}, place)


def read_messages(path: Path) -> Any:
    """What a file of messages holds.

    Raises:
        InputError: It cannot be read, or is not JSON.
    """
    text = decode_text(read_bytes(path, limit=TEXT_LIMIT), place=str(path))
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON: {error}", place=str(path), hint=_MESSAGES) from error


def _checked(found: Any, place: str) -> dict[str, Any]:
    """The variables of the template, with the messages among them."""
    variables = dict(found) if isinstance(found, dict) else {"messages": found}
    messages = variables.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InputError("holds no messages", place=place, hint=_MESSAGES)
    if not all(isinstance(each, dict) for each in messages):
        raise InputError("a message is not an object", place=place, hint=_MESSAGES)
    return variables


def _template(tokenizer: Path) -> str:
    """The template of a tokenizer; of several, the one named ``default``."""
    own = tokenizer.with_name(TEMPLATE)
    if own.is_file():
        return decode_text(read_bytes(own, limit=TEXT_LIMIT), place=str(own))
    found = read_config(tokenizer).get("chat_template")
    if isinstance(found, list):
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get("default")
    if not isinstance(found, str):
        raise InputError(
            "the tokenizer has no chat template",
            place=str(tokenizer.with_name(CONFIG)),
            hint="write the prompt as the model expects it, and give it with --input",
        )
    return found


def _render(template: str, variables: dict[str, Any], place: str) -> str:
    from palrp_onnx.inputs import chat_process  # jinja2 is only needed here

    request = json.dumps({"template": template, "variables": variables})
    try:
        done = subprocess.run(
            [sys.executable, "-P", chat_process.__file__],
            input=request,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=2 * chat_process.SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError("the chat template does not end", place=place) from error
    if done.returncode:
        raise InputError(
            "the process of the chat template ended, as it takes too long or too much memory",
            place=place,
            hint=" ".join(done.stderr.strip().splitlines()[-1:]),
        )
    answer = json.loads(done.stdout)
    if "text" not in answer:
        problem = "the chat template fails on these messages"
        raise InputError(problem, place=place, hint=answer["error"])
    rendered = str(answer["text"])
    if len(rendered) > TEXT_LIMIT:
        problem = f"the chat template makes {len(rendered):,} characters of these messages"
        raise InputError(f"{problem}, more than {TEXT_LIMIT:,}", place=place)
    return rendered
