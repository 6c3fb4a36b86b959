"""What a page has to know to read texts as :class:`palrp_onnx.inputs.TextReader` does."""

from __future__ import annotations

from typing import Any

from palrp_onnx.errors import UnsupportedError
from palrp_onnx.inputs.purposes import MASK, PADDING
from palrp_onnx.inputs.text import TextReader, TextRules
from palrp_onnx.inputs.tokens import Tokenizer
from palrp_onnx.web.arrays import array_type

#: Texts of many scripts and signs, with which a page checks its tokenizer.
PROBES = (
    "A gripping film, from its first minute to the last.",
    "It isn't bad; they're “good” – I'd've said 3.14 or 1,000 %!",
    "The dogs near the cat sleep",
    "Über naïve façades, Ærø, İstanbul, straße, ﬁne, e\u0301, Σίσυφος ΣΑΣ",
    "Привет, мир! Ще не вмерла.",
    "你好,世界。日本語のテキスト、カタカナ。한국어 텍스트",
    "العربية من اليمين שלום עולם हिन्दी में ไทย",
    "😀 👩‍👩‍👧 🇩🇪 ½ ² ™ 𝔘𝔫𝔦 €100",
    "two  blanks\tand\na line\n\nor two   ",
    "user@example.org http://a.b/c?d=e&f #tag @name snake_case camelCase x2y3",
    "def f(x):\n    return {'a': [1, 2]}  # code",
    "a\u00a0b\u200bc\u00add\ufeffe",
)


def text_facts(reader: TextReader) -> tuple[dict[str, Any], bytes]:
    """Facts for a page that reads one text, and its ``tokenizer.json``.

    Raises:
        UnsupportedError: The graph takes several choices, a mask of padding in rows of a fixed
            length, or a type that browsers have no arrays of; or the tokenizer's template is more
            than tokens before and after a text.
    """
    rules = reader.rules
    if reader.takes_choices:
        raise UnsupportedError("A page reads one text, and the graph takes several choices")
    if rules.length is not None and (PADDING in rules.inputs or rules.pad is None):
        raise UnsupportedError(
            f"The graph is fixed to {rules.length} tokens, and shorter texts cannot be padded",
            hint="Export the model with a dynamic length.",
        )
    facts = {
        "inputs": [
            {
                "name": each.name,
                "receives": purpose,
                "type": array_type(each),
                "axes": 2 if each.shape is None else len(each.shape),
            }
            for purpose, several in rules.inputs.items()
            for each in several
        ],
        "limit": None if rules.truncation is None else rules.truncation.limit,
        "length": rules.length,
        "pad": None if rules.pad is None else rules.pad.id,
        "left": rules.side == "left",
        "unknown": _unknown(rules.tokenizer),
        **_template(rules),
        "probes": [[text, _alone(rules, text)] for text in PROBES],
        "notices": [],
    }
    if rules.length is not None and MASK not in rules.inputs:
        facts["notices"].append("The graph takes no mask, so it sees padding as tokens.")
    return facts, rules.tokenizer.to_str().encode()


def _unknown(tokenizer: Tokenizer) -> int | None:
    name = getattr(tokenizer.model, "unk_token", None)
    return None if name is None else tokenizer.token_to_id(name)


def _alone(rules: TextRules, text: str) -> list[int]:
    return list(rules.tokenizer.encode(text, add_special_tokens=False).ids)


def _template(rules: TextRules) -> dict[str, Any]:
    """The tokens before and after every text, and the types of them and of the text.

    Raises:
        UnsupportedError: They are not the same for all texts.
    """
    found = []
    for text in PROBES:
        encoding, own = rules.tokenizer.encode(text), _alone(rules, text)
        count = [*encoding.special_tokens_mask, 0].index(0)
        last = count + len(own)
        if encoding.ids[count:last] != own:
            raise UnsupportedError("The tokenizer's template changes the tokens of a text")
        found.append(
            {
                "before": encoding.ids[:count],
                "after": encoding.ids[last:],
                "types": [
                    encoding.type_ids[:count],
                    sorted(set(encoding.type_ids[count:last])),
                    encoding.type_ids[last:],
                ],
            }
        )
    # A tokenizer of few words may find none in a text.
    known = [each for each in found if each["types"][1]]
    if not known or any(each != known[0] for each in known) or len(known[0]["types"][1]) != 1:
        raise UnsupportedError("The tokenizer's template is not the same for all texts")
    return known[0]
