"""Names of the inputs and outputs that an explainer's graph has beside those of the model."""

from __future__ import annotations

CONTENT, POSITION, TOTAL = "relevance_content", "relevance_position", "relevance_total"
SCORE = "relevance_score"
SITES, LEDGER = "relevance_sites", "relevance_ledger"
OFF_MAP = "relevance_off_map"
#: Prefix of outputs with a feature axis.
FEATURES = "features/"
#: Factor of the seed in half precision; relevance is divided by it at the end.
SEED_SCALE, DEFAULT_SCALE = "seed_scale", 256.0
TARGET, AGAINST, TARGET_POSITION = "target", "target_against", "target_position"
#: A vector that the output is multiplied with, instead of choosing one of its entries.
TARGET_VECTOR = "target_vector"
#: The multiplier of the whole output, where the target is at several of its places.
TARGET_SEED = "target_seed"
#: Inputs that explainers add; they are optional unless compiled otherwise.
OPTIONAL = (TARGET, AGAINST, TARGET_POSITION, TARGET_VECTOR, TARGET_SEED, SEED_SCALE)

_OUTPUTS = (CONTENT, POSITION, TOTAL, SCORE, SITES, OFF_MAP, LEDGER)


def is_reserved(name: str) -> bool:
    """Whether explainers use a name for their own inputs, outputs or values."""
    prefixes = ("relevance/", FEATURES, *(f"{output}/" for output in _OUTPUTS))
    return name.startswith(prefixes) or name in (*OPTIONAL, *_OUTPUTS)


def source_name(name: str) -> str:
    """Name in an explainer of a value of the source model: reserved names get a prefix."""
    return f"source/{name}" if is_reserved(name) else name
