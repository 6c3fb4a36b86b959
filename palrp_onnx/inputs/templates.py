"""Tokens at the start and at the end of a text, as ``tokenizer_config.json`` asks for them."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, processors  # type: ignore[import-untyped]

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.reading import read_optional_json
from palrp_onnx.inputs.tokenizer_checks import panics_are_errors
from palrp_onnx.inputs.tokenizer_files import CONFIG, SPECIAL, flag_of, read_config, token_of

#: Classes that write their own template, and whether texts start with BOS by default.
_STARTS = {"Llama": True, "CodeLlama": True, "Gemma": True, "Cohere": True, "GPTNeoX": False}


def follow_flags(tokenizer: Tokenizer, path: Path) -> None:
    """Follow ``add_bos_token`` and ``add_eos_token``, which come before the stored template.

    Where they are absent, the template stays, except for classes that always write their own.

    Args:
        tokenizer: The tokenizer, which is changed.
        path: Its file.

    Raises:
        InputError: A token is not given or not in the vocabulary, or the template has others.
    """
    config, place = read_config(path), path.with_name(CONFIG)
    named = {**read_optional_json(path.with_name(SPECIAL)), **config}
    texts = {end: token_of(named.get(f"{end}_token")) for end in ("bos", "eos")}
    wanted = {end: flag_of(config, f"add_{end}_token", place) for end in texts}
    name = str(config.get("tokenizer_class")).removesuffix("Fast").removesuffix("Tokenizer")
    if name in _STARTS and wanted["bos"] is None and texts["bos"] is not None:
        wanted["bos"] = _STARTS[name]
    before, after = _around(tokenizer, path)
    now = {
        "bos": before[:1] == [texts["bos"]],
        "eos": after[-1:] == [texts["eos"]],
    }
    if all(flag in (None, now[end]) for end, flag in wanted.items()):
        return
    if {*before, *after} - {text for end, text in texts.items() if now[end]}:
        raise InputError(
            "add_bos_token or add_eos_token contradicts the template of the tokenizer: "
            f"{before} … {after}",
            place=str(place),
            hint="Make both agree: load the tokenizer with Transformers, and save it again.",
        )
    kept = {end: now[end] if flag is None else flag for end, flag in wanted.items()}
    _write(tokenizer, {end: texts[end] for end, flag in kept.items() if flag}, place)


def _around(tokenizer: Tokenizer, path: Path) -> tuple[list[str], list[str]]:
    """The tokens that the template puts before and after a text."""
    with panics_are_errors("cannot be used", place=str(path)):
        found = tokenizer.encode("a", add_special_tokens=True)
    own = [k for k, special in enumerate(found.special_tokens_mask) if not special]
    if not own:
        return list(found.tokens), list(found.tokens)
    return list(found.tokens[: own[0]]), list(found.tokens[own[-1] + 1 :])


def _write(tokenizer: Tokenizer, texts: dict[str, str | None], place: Path) -> None:
    ids: dict[str, int] = {}
    for end, text in texts.items():
        found = None if text is None else tokenizer.token_to_id(text)
        if text is None or found is None:
            message = f"add_{end}_token is true, but {end}_token is {text!r}"
            raise InputError(message, place=str(place))
        ids[text] = found
    first, last = texts.get("bos"), texts.get("eos")
    single, second = (
        " ".join(filter(None, (first and f"{first}:{kind}", body, last and f"{last}:{kind}")))
        for kind, body in ((0, "$A:0"), (1, "$B:1"))
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=f"{single} {second}", special_tokens=list(ids.items())
    )
