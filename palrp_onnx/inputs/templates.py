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

#: Other classes that follow the flags, or none ("None"). DeBERTa's flag, for example, does nothing.
_FOLLOWING = ("GPT2", "CodeGen", "PreTrained", "None")


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
    if name in _STARTS and texts["bos"] is not None:
        kept = {"bos": _STARTS[name], "eos": False}
    elif name in _FOLLOWING and any(flag is not None for flag in wanted.values()):
        kept = _stored(tokenizer, texts, path)
    else:
        return
    flags = {end: kept[end] if flag is None else flag for end, flag in wanted.items()}
    if name in _STARTS or flags != kept:
        found = {end: texts[end] for end, flag in flags.items() if flag}
        _write(tokenizer, found, place, each=name in _STARTS)


def _stored(tokenizer: Tokenizer, texts: dict[str, str | None], path: Path) -> dict[str, bool]:
    """Which of the tokens the stored template has."""
    before, after = _around(tokenizer, path)
    found = {"bos": before[:1] == [texts["bos"]], "eos": after[-1:] == [texts["eos"]]}
    if {*before, *after} - {texts[end] for end, there in found.items() if there}:
        raise InputError(
            f"add_bos_token or add_eos_token is given, but the template of {path.name} has other "
            f"tokens: {before} … {after}",
            place=str(path.with_name(CONFIG)),
            hint="Make both agree: load the tokenizer with Transformers, and save it again.",
        )
    return found


def _around(tokenizer: Tokenizer, path: Path) -> tuple[list[str], list[str]]:
    """The tokens that the template puts before and after a text."""
    with panics_are_errors("cannot be used", place=str(path)):
        found = tokenizer.encode("a", add_special_tokens=True)
    own = [k for k, special in enumerate(found.special_tokens_mask) if not special]
    if not own:
        return list(found.tokens), list(found.tokens)
    return list(found.tokens[: own[0]]), list(found.tokens[own[-1] + 1 :])


def _write(tokenizer: Tokenizer, texts: dict[str, str | None], place: Path, *, each: bool) -> None:
    """Write a template of these tokens; ``each``: around each text of a pair, not the whole."""
    ids: dict[str, int] = {}
    for end, text in texts.items():
        found = None if text is None else tokenizer.token_to_id(text)
        if text is None or found is None:
            message = f"add_{end}_token is true, but {end}_token is {text!r}"
            raise InputError(message, place=str(place))
        ids[text] = found
    first, last = texts.get("bos"), texts.get("eos")

    def around(body: str, kind: int) -> str:
        return " ".join(
            filter(None, (first and f"{first}:{kind}", body, last and f"{last}:{kind}"))
        )

    single = around("$A:0", 0)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single,
        pair=f"{single} {around('$B:1', 1)}" if each else around("$A:0 $B:1", 0),
        special_tokens=list(ids.items()),
    )
