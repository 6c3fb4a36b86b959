"""The log of what was changed in a file's graph before it is explained.

Every pass that changes how something is computed returns such a log: operations rewritten,
functions inlined, branches taken, caches left empty, types widened, opsets raised, sums moved or
copied. An empty one says that the graph is as it was. What runs the passes adds it to the log of
the model. Whatever is in that log has to be proven: where it is not empty, the output is compared
with that of the file (see :mod:`palrp_onnx.fidelity`). What only reorders or renames nodes is no
change.
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
    """What the file is still fed for an input that was taken out: a cache of no tokens, or false.

    Attributes:
        name: Name of the input.
        dtype: Its type.
        shape: Its axes; ``None`` for one of as many entries as there are samples.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]

    def array(self, samples: int) -> NDArray[np.generic]:
        """The array for a batch."""
        return np.zeros([samples if d is None else d for d in self.shape], self.dtype)


@dataclass
class Changes:
    """A log that goes along with one graph, and grows where that graph is changed."""

    _counts: Counter[str] = field(default_factory=Counter)
    _blanks: list[Blank] = field(default_factory=list)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many of each were changed: operations by name, everything else in words."""
        return MappingProxyType(self._counts)

    @property
    def blanks(self) -> tuple[Blank, ...]:
        """Inputs of the file that were taken out."""
        return tuple(self._blanks)

    def __bool__(self) -> bool:
        return bool(self._counts or self._blanks)

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Changes:
        """The log of so many changes of each kind, of those that there are any."""
        return cls(Counter({what: count for what, count in counts.items() if count}))

    @classmethod
    def taken_out(cls, what: str, blanks: Iterable[Blank]) -> Changes:
        """The log of inputs that were taken out."""
        found = list(blanks)
        return cls(cls.of({what: len(found)})._counts, found)

    def add(self, other: Changes) -> None:
        """Write down what another log holds."""
        self._counts.update(other._counts)
        self._blanks += other._blanks

    def copy(self) -> Changes:
        """A log of its own, for a copy of the graph."""
        return Changes(Counter(self._counts), list(self._blanks))
