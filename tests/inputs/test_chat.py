"""Conversations: the tokenizer's chat template is data from a stranger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from palrp_onnx.errors import InputError
from palrp_onnx.inputs import chat_process
from palrp_onnx.inputs.chat import read_chat

QUESTION = [{"role": "user", "content": "hé <b>?"}]


@pytest.fixture
def messages(tmp_path: Path) -> Path:
    path = tmp_path / "messages.json"
    path.write_text(json.dumps(QUESTION), encoding="utf-8")
    return path


def written(folder: Path, template: Any, **more: Any) -> Path:
    config = {"chat_template": template, "bos_token": "<s>", **more}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder / "tokenizer.json"


def test_what_transformers_gives_a_template(tmp_path: Path, messages: Path) -> None:
    template = """{{ bos_token }}{% for m in messages %}
{% if loop.index > 1 %}{% break %}{% endif %}
[{{ m['role'] }}] {{ m.content | trim }}{{ eos_token }}
{% endfor %}
{{ messages | tojson }}{% generation %}{{ tools is none }}{% endgeneration %}
{% if add_generation_prompt %}[answer]{% endif %}"""
    tokenizer = written(tmp_path, template, eos_token={"content": "</s>"})
    expected = '<s>[user] hé <b>?</s>\n[{"role": "user", "content": "hé <b>?"}]True[answer]'
    assert read_chat(messages, tokenizer) == expected


def test_transformers_agrees(tmp_path: Path, messages: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models  # type: ignore[import-untyped]

    template = (
        "{%- for m in messages %}\n  {{- '<|' + m['role'] + '|>' }}\n"
        "{{ m['content'] }}{{ eos_token }}\n{% endfor %}\n"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    own = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>", eos_token="</s>"
    )
    own.chat_template = template
    own.save_pretrained(tmp_path)
    for answered in (False, True):
        conversation = [*QUESTION, {"role": "assistant", "content": "yes"}][: 1 + answered]
        messages.write_text(json.dumps(conversation))
        expected = own.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=not answered
        )
        assert read_chat(messages, tmp_path) == expected


def test_a_template_in_a_file_of_its_own(tmp_path: Path, messages: Path) -> None:
    tokenizer = written(tmp_path, "old")
    (tmp_path / "chat_template.jinja").write_text("new {{ messages[0].content }}")
    assert read_chat(messages, tokenizer) == "new hé <b>?"


def test_the_default_of_several(tmp_path: Path, messages: Path) -> None:
    several = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]
    assert read_chat(messages, written(tmp_path, several)) == "b"


def test_variables_of_the_template(tmp_path: Path, messages: Path) -> None:
    messages.write_text(json.dumps({"messages": QUESTION, "tools": [1], "style": "short"}))
    assert read_chat(messages, written(tmp_path, "{{ tools }} {{ style }}")) == "[1] short"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ open('/etc/passwd') }}", "undefined"),
        ("{% for", "TemplateSyntaxError"),
        ("{{ 'a' * 10 ** 10 }}", "MemoryError"),
        (None, "has no chat template"),
        ([1], "has no chat template"),
    ],
)
def test_templates_that_are_refused(
    tmp_path: Path, messages: Path, template: Any, message: str
) -> None:
    with pytest.raises(InputError) as error:
        read_chat(messages, written(tmp_path, template))
    assert message in f"{error.value.message} {error.value.hint}"


def test_a_template_that_does_not_end(
    tmp_path: Path, messages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_process, "SECONDS", 0.5)
    body = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(InputError, match="does not end"):
        read_chat(messages, written(tmp_path, body))


@pytest.mark.parametrize("text", ["", "[]", "{}", "[1]", '"a"', '{"messages": 3}', "[" * 9999])
def test_files_without_messages(tmp_path: Path, messages: Path, text: str) -> None:
    messages.write_text(text)
    with pytest.raises(InputError):
        read_chat(messages, written(tmp_path, "x"))


def test_a_template_that_writes_too_much(tmp_path: Path, messages: Path) -> None:
    tokenizer = written(tmp_path, "{{ 'x' * 5000000 }}")
    with pytest.raises(InputError, match="makes 5,000,000 characters"):
        read_chat(messages, tokenizer)
