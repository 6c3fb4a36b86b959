"""Codes of the warnings of records, each with what it says."""

from __future__ import annotations

from collections.abc import Mapping

WARNINGS: Mapping[str, str] = {
    "also-file": "the text is also the name of a file, which was not read",
    "barred": "the token that would have followed is one that the model's settings forbid",
    "below-half": "no class reaches a probability of one half; the most likely one is explained",
    "branches": "a compiled file has the branches that one example takes",
    "channels": "channels of sound were mixed to one",
    "frames": "only the first picture of several was used",
    "kernels": "kernels of whole numbers compute another output on this machine",
    "no-answer": "the first token, by which models say that there is no answer, scores more",
    "no-attention": "attention of a layer is not a number, and nothing passes through it",
    "no-classes": "nothing says that the entries of the output are classes",
    "no-mask": "no masked token was found, so the last token is explained",
    "open-ledger": "the entries of the ledger miss the target by more than rounding",
    "open-map": "a map misses its entry of the ledger by more than rounding",
    "other-inputs": "relevance of some inputs is in the records alone, not in the matrix",
    "own-start": "the text begins with the tokens that the template would put first",
    "padded": "the graph takes no mask, so it sees padding as tokens",
    "probability": "the map is of a probability, which keeps little of a sure prediction",
    "resampled": "sound was brought to the rate that the model takes",
    "resampling": "the picture was resized by another filter than the model's files name",
    "resized-mask": "a mask in the size of the picture was brought to the places of the output",
    "rounded": "numbers of an input were rounded to its type",
    "served": "the file as ONNX Runtime optimises it computes another output",
    "several-masks": "the text has several masked tokens, of which the first is explained",
    "truncated": "the text or sound is longer than the model, which read a part of it",
    "unaligned-site": "places of a site cannot be followed to units: it is not on the map",
    "uncertain": "the role of a value is in doubt",
    "unverified": "ONNX Runtime cannot run the file itself, so that the output was not compared",
    "whole-scores": "memory grows with tokens², as attention could not be computed in blocks",
    "windows": "a long text was explained in windows: the target is the mean over them",
    "zero_map": "the map is zero everywhere",
}
