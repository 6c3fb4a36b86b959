"""The raw result of a walk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from palrp_onnx.relevance.sinks import Sink
from palrp_onnx.types import Array


@dataclass(frozen=True)
class RawRelevance:
    """Raw result for a batch: signed relevance in units of the target.

    Attributes:
        content: Of the explained input: [B, T, F] for tokens, [B, C, H, W] for images.
        others: The same for further explained inputs, by name.
        sinks: Signed position relevance [B, T, F] by kind, layer and part.
        further_sinks: The same as they are aligned with each further explained input.
        ledger: Entries, ``target``, ``residual`` and ``residual_relative``, each [B].
    """

    content: Array
    others: Mapping[str, Array]
    sinks: tuple[Sink, ...]
    ledger: Mapping[str, Array]
    further_sinks: tuple[tuple[Sink, ...], ...] = ()
