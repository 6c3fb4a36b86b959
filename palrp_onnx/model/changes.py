"""The log of changes of a file's graph before it is explained.

Every pass that changes how a value is computed returns such a log: operations rewritten, functions
inlined, branches replaced, caches removed, types widened, opsets raised, sums moved or copied. A
pass that changed nothing returns an empty one. The caller of the passes adds them to the log of the
model. Where that is not empty, the output is compared with that of the file (see
:mod:`palrp_onnx.fidelity`). Passes that only reorder or rename nodes return an empty log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Blank:
    """An input that was removed from the graph, with what the file is fed for it.

    Its array is zero: a cache without tokens, or a switch that is false.

    Attributes:
        name: Name of the input.
        dtype: Its type.
        shape: Lengths of its axes; ``None`` for the number of samples.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]

    def array(self, samples: int) -> NDArray[np.generic]:
        """The array for a batch of ``samples``."""
        return np.zeros([samples if d is None else d for d in self.shape], self.dtype)


@dataclass
class Changes:
    """The log of one pass, or of all passes over one graph."""

    _counts: Counter[str] = field(default_factory=Counter)
    _blanks: list[Blank] = field(default_factory=list)

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of changes of each kind: operations by name, other changes in words."""
        return MappingProxyType(self._counts)

    @property
    def blanks(self) -> tuple[Blank, ...]:
        """Inputs of the file that were removed."""
        return tuple(self._blanks)

    def __bool__(self) -> bool:
        return bool(self._counts or self._blanks)

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Changes:
        """The log of changes, given their number by kind; kinds without a change are left out."""
        return cls(Counter({what: count for what, count in counts.items() if count}))

    @classmethod
    def removed(cls, what: str, blanks: Iterable[Blank]) -> Changes:
        """The log of inputs that were removed; ``what`` is their kind."""
        found = list(blanks)
        return cls(cls.of({what: len(found)})._counts, found)

    def add(self, other: Changes) -> None:
        """Add the entries of another log."""
        self._counts.update(other._counts)
        self._blanks += other._blanks

    def copy(self) -> Changes:
        """A copy, for a copy of the graph."""
        return Changes(Counter(self._counts), list(self._blanks))
