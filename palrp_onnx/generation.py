"""Texts that a model continues: every token is explained where it is produced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from msgspec import structs

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.explainer import Explainer
from palrp_onnx.explanation import Explanation
from palrp_onnx.inputs import Continuation, Sample
from palrp_onnx.record import Warning_


def generate(
    explainer: Explainer, sample: Sample, text: Continuation, count: int
) -> Iterator[Explanation]:
    """Continue a text greedily, and explain every token that is produced.

    Args:
        explainer: The explainer.
        sample: The prompt, or what an encoder reads and what the decoder begins with; one row.
        text: Appends tokens, and knows which end a text and which are not chosen.
        count: Largest number of tokens.

    Raises:
        UsageError: The model does not predict a next token, or the sample has several rows.
    """
    name = sample.id
    for step in range(count):
        sample = replace(sample, id=f"{name}-{step}")
        explanation = _one(explainer, sample, "pred")
        token = _token(explanation)
        if token in (barred := text.settings.barred(step)):
            place = explanation.record.target.position
            token, first = _allowed(explainer, sample, place, barred), token
            explanation = _barred(_one(explainer, sample, f"token:-1:{token}"), first)
        sample = text.extend(sample, token)
        yield _labelled(explanation, text.last(sample))
        if token in text.settings.ends:
            return


def follow(
    explainer: Explainer, sample: Sample, text: Continuation, tokens: Sequence[int]
) -> Iterator[Explanation]:
    """Explain each of these tokens where it stands, as `generate` does with tokens of its own."""
    name = sample.id
    for step, token in enumerate(tokens):
        explanation = _one(explainer, replace(sample, id=f"{name}-{step}"), f"token:-1:{token}")
        sample = text.extend(sample, token)
        yield _labelled(explanation, text.last(sample))


def _one(explainer: Explainer, sample: Sample, target: str) -> Explanation:
    subject = explainer.engine(sample.feeds).subject
    head = explainer.head(subject, subject.facts.shape, {})
    if head.kind != "causal-lm" or subject.samples(sample.feeds) > 1:
        raise UsageError(
            "Only a model that predicts the next token can continue, one text at a time",
            place=f"output {subject.output}: {head.kind}, as {head.why}",
            hint="Leave out --generate or --continuation; or give --head causal-lm if it is one.",
        )
    (explanation,) = explainer.explain(sample, target)
    return explanation


def _token(explanation: Explanation) -> int:
    index = explanation.record.target.index
    assert isinstance(index, int)
    return index


def _allowed(
    explainer: Explainer, sample: Sample, place: int | None, barred: frozenset[int]
) -> int:
    """The token with the largest score at a place of those that are not barred.

    Raises:
        InputError: All are barred.
    """
    scores = explainer.engine(sample.feeds).output(sample.feeds)[0, -1 if place is None else place]
    if barred.issuperset(range(len(scores))):
        raise InputError("the model's settings of generation suppress every token")
    return max((k for k in range(len(scores)) if k not in barred), key=lambda k: float(scores[k]))


def _barred(explanation: Explanation, first: int) -> Explanation:
    """The explanation, with the warning that another token has a larger score."""
    warning = Warning_(
        code="barred",
        message=f"token {first} has the largest score, but the model's settings of generation "
        "suppress it",
    )
    return explanation.warned(warning)


def _labelled(explanation: Explanation, label: str) -> Explanation:
    """The explanation, with the text of the produced token as label."""
    record = explanation.record
    target = structs.replace(record.target, label=label)
    return replace(explanation, record=structs.replace(record, target=target))
