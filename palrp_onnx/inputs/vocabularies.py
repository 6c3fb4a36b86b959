"""Tokenizers from vocabulary files: ``vocab.txt``, or ``vocab.json`` with ``merges.txt``.

These files leave open how a text is cut and which tokens are put around it. That follows from the
kind of tokenizer, which is named by ``tokenizer_class`` or by ``model_type``. Where it is not
named, or not known here, the tokenizer is refused: another cut gives another text. Token ids are
those of Transformers.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import (  # type: ignore[import-untyped]
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.reading import read_bytes, read_json_object, read_optional_json
from palrp_onnx.inputs.tokenizer_checks import panics_are_errors
from palrp_onnx.inputs.tokenizer_files import (
    ADDED,
    CONFIG,
    MERGES,
    SPECIAL,
    WORDS,
    flag_of,
    read_config,
    token_of,
)

#: How to write a ``tokenizer.json``, for hints.
CONVERT = (
    'Write a tokenizer.json with Transformers: python -c "from transformers import AutoTokenizer; '
    "AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')\""
)
_LIMIT = 64 << 20


@dataclass(frozen=True)
class _TokenizerKind:
    """One kind of tokenizer.

    Attributes:
        classes: Values of ``tokenizer_class``, without "Tokenizer" and "TokenizerFast".
        types: Values of ``model_type`` of models that have this kind by default.
        tokens: Special tokens by role, where the files do not name them.
        single: Template of a text; roles stand for special tokens.
        pair: Template of a pair of texts.
    """

    classes: tuple[str, ...]
    types: tuple[str, ...]
    tokens: Mapping[str, str]
    single: str = "$A:0"
    pair: str = "$A:0 $B:0"


_BRACKETS = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
_ANGLES = {
    "bos": "<s>",
    "eos": "</s>",
    "unk": "<unk>",
    "cls": "<s>",
    "sep": "</s>",
    "pad": "<pad>",
    "mask": "<mask>",
}
_BERT = _TokenizerKind(
    tuple("Bert DistilBert Electra MobileBert SqueezeBert ConvBert LayoutLM Lxmert".split()),
    tuple("bert distilbert electra mobilebert squeezebert convbert layoutlm lxmert".split()),
    _BRACKETS,
    "cls:0 $A:0 sep:0",
    "cls:0 $A:0 sep:0 $B:1 sep:1",
)
_WORDS = (
    _BERT,
    _TokenizerKind(
        ("MPNet",),
        ("mpnet",),
        {**_ANGLES, "unk": "[UNK]"},
        "cls:0 $A:0 sep:0",
        "cls:0 $A:0 sep:0 sep:0 $B:1 sep:1",
    ),
)
_END = "<|endoftext|>"
_PIECES = (
    _TokenizerKind(
        ("GPT2",),
        ("gpt2", "gpt_neo", "gptj", "gpt_bigcode", "opt"),
        {"bos": _END, "eos": _END, "unk": _END},
        pair="$A:0 $B:1",
    ),
    _TokenizerKind(
        ("Roberta", "Longformer", "Bart", "LED"),
        ("roberta", "roberta-prelayernorm", "data2vec-text", "longformer", "bart", "led"),
        _ANGLES,
        "cls:0 $A:0 sep:0",
        "cls:0 $A:0 sep:0 sep:0 $B:0 sep:0",
    ),
    _TokenizerKind(
        ("Deberta",),
        ("deberta",),
        {**_BRACKETS, "bos": "[CLS]", "eos": "[SEP]"},
        "cls:0 $A:0 sep:0",
        "cls:0 $A:0 sep:0 $B:1 sep:1",
    ),
)


def is_vocabulary(path: Path) -> bool:
    """Whether a file is a vocabulary that this module reads."""
    return path.suffix == ".txt" or (path.suffix == ".json" and path.with_name(MERGES).is_file())


def read_vocabulary(path: Path) -> Tokenizer:
    """The tokenizer of a vocabulary file.

    Raises:
        InputError: A file cannot be read or contradicts another, or the kind is not known.
    """
    files = _Files(path)
    with panics_are_errors("is not a vocabulary that can be used", place=str(path)):
        tokenizer = files.word_pieces() if path.suffix == ".txt" else files.byte_pieces()
        files.add_tokens(tokenizer)
        files.set_template(tokenizer)
        return tokenizer


class _Files:
    """The files of one tokenizer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._config = read_config(path)
        self._special = read_optional_json(path.with_name(SPECIAL))
        self._model = read_optional_json(beside(path, "config.json"))

    # --- the vocabulary ------------------------------------------------------------------------
    def word_pieces(self) -> Tokenizer:
        """WordPiece, cut as BERT does."""
        vocabulary = self._vocabulary
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=self._token("unk")))
        if self._flag("do_basic_tokenize") is False or self._config.get("never_split"):
            raise self._unknown("do_basic_tokenize and never_split are not supported")
        lower = self._flag("do_lower_case")
        if lower is None:
            # Without the key, Transformers writes small letters; large ones would never be found.
            names = {token_of(each) for each in (*self._special.values(), *self._tokens.values())}
            if any(word != word.lower() for word in vocabulary if word not in names):
                raise self._unknown(
                    "it has capital letters, and do_lower_case is not given",
                    f'Write {{"do_lower_case": false}} (or true) to {CONFIG}.',
                )
            lower = True
        chinese = self._flag("tokenize_chinese_chars")
        tokenizer.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=chinese is not False,
            strip_accents=self._flag("strip_accents"),
            lowercase=lower,
        )
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(prefix="##")
        return tokenizer

    def byte_pieces(self) -> Tokenizer:
        """Byte-level BPE, cut as GPT-2 does."""
        lines = _lines(self._path.with_name(MERGES))
        merges = [tuple(line.split(" ")) for line in lines if line and line[:8] != "#version"]
        if not all(len(merge) == 2 for merge in merges):
            raise InputError("a line is not a pair", place=str(self._path.with_name(MERGES)))
        model = models.BPE(
            self._vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix=""
        )
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=self._prefixed)
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        if self._path.suffix == ".txt":
            return {word: index for index, word in enumerate(_lines(self._path))}
        found = read_json_object(self._path)
        if not all(isinstance(index, int) for index in found.values()):
            raise InputError("does not map tokens to numbers", place=str(self._path))
        return found

    @property
    def _prefixed(self) -> bool:
        return self._flag("add_prefix_space") is True

    # --- special tokens ------------------------------------------------------------------------
    def add_tokens(self, tokenizer: Tokenizer) -> None:
        """Add the special and the further tokens, which are found in a text before it is cut."""
        added: dict[str, tuple[int | None, AddedToken]] = {}
        for role in self._tokens:
            text = self._token(role)
            strips = role == "mask" and self._kind is not _BERT  # "a <mask>" has one space less
            facts = {"lstrip": strips, "normalized": False, "special": True}
            own = self._config.get(f"{role}_token")
            added[text] = None, _added(text, {**facts, **(own if isinstance(own, dict) else {})})
        for text, index in read_optional_json(self._path.with_name(ADDED)).items():
            added[text] = index, AddedToken(text, normalized=False)
        for index, facts in (self._config.get("added_tokens_decoder") or {}).items():
            added[facts["content"]] = int(index), _added(facts["content"], facts)
        known = {text: tokenizer.token_to_id(text) for text in added}
        for text, (index, token) in sorted(added.items(), key=lambda item: item[1][0] or 0):
            if index is None and known[text] is None:
                continue  # a usual token that this vocabulary does not have
            (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
            if index is not None and tokenizer.token_to_id(text) != index:
                raise InputError(
                    f"the added token {text!r} does not follow the vocabulary",
                    place=str(self._path),
                )

    def set_template(self, tokenizer: Tokenizer) -> None:
        """Put the special tokens of this kind around texts."""
        kind = self._kind
        named = {role: self._token(role) for role in ("cls", "sep") if f"{role}:" in kind.single}
        if not named:
            tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
            return
        ids = {text: tokenizer.token_to_id(text) for text in named.values()}
        missing = [text for text, index in ids.items() if index is None]
        if missing:
            raise self._unknown(f"it lacks the special token {missing[0]!r}")
        if kind.pair.endswith("$B:0 sep:0"):
            sep, cls = ((named[role], ids[named[role]]) for role in ("sep", "cls"))
            tokenizer.post_processor = processors.RobertaProcessing(
                sep, cls, add_prefix_space=self._prefixed, trim_offsets=True
            )
            return
        tokenizer.post_processor = processors.TemplateProcessing(
            single=_filled(kind.single, named),
            pair=_filled(kind.pair, named),
            special_tokens=list(ids.items()),
        )

    def _token(self, role: str) -> str:
        key = f"{role}_token"
        found = {token_of(each.get(key)) for each in (self._config, self._special)} - {None}
        if len(found) > 1:
            raise InputError(
                f"{CONFIG} and {SPECIAL} name different tokens: {key}", place=str(self._path)
            )
        return found.pop() or "" if found else self._tokens[role]

    @property
    def _tokens(self) -> Mapping[str, str]:
        return self._kind.tokens

    # --- the kind ------------------------------------------------------------------------------
    @cached_property
    def _kind(self) -> _TokenizerKind:
        kinds = _WORDS if self._path.suffix == ".txt" else _PIECES
        name = self._config.get("tokenizer_class") or self._model.get("tokenizer_class")
        if name is not None:
            short = str(name).removesuffix("Fast").removesuffix("Tokenizer")
            found = [kind for kind in kinds if short in kind.classes]
            said = f"its tokenizer_class {name} is not known here"
        elif "model_type" in self._model:
            found = [kind for kind in kinds if self._model["model_type"] in kind.types]
            said = f"the kind of tokenizer of a {self._model['model_type']} model is not known here"
        else:
            found = [_BERT] if self._looks_like_bert() else []
            said = "nothing names its kind: tokenizer_class or model_type"
        if not found:
            raise self._unknown(said)
        return found[0]

    def _looks_like_bert(self) -> bool:
        """Whether a list of words has BERT's special tokens and continuing pieces."""
        if self._path.name != WORDS:
            return False
        words = self._vocabulary
        return all(words.get(t) is not None for t in ("[UNK]", "[CLS]", "[SEP]", "[PAD]")) and any(
            word.startswith("##") for word in words
        )

    def _flag(self, key: str) -> bool | None:
        return flag_of(self._config, key, self._path.with_name(CONFIG))

    def _unknown(self, problem: str, hint: str = "") -> InputError:
        return InputError(
            f"this vocabulary alone is not a tokenizer: {problem}",
            place=str(self._path),
            hint=hint or CONVERT.format(folder=self._path.parent),
        )


_FLAGS = ("lstrip", "rstrip", "normalized", "single_word", "special")


def _added(text: str, facts: Mapping[str, Any]) -> AddedToken:
    return AddedToken(text, **{key: facts[key] for key in _FLAGS if key in facts})


def _filled(template: str, named: Mapping[str, str]) -> str:
    return " ".join(
        f"{named.get(name, name)}:{kind}"
        for name, kind in (part.rsplit(":", 1) for part in template.split())
    )


def _lines(path: Path) -> list[str]:
    data = read_bytes(path, limit=_LIMIT)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8: {error.reason}", place=str(path)) from error
    return [line.rstrip("\n") for line in io.StringIO(text, newline=None)]
