"""Which entries of a mask keep a token: a trial run shows it.

Two tokens are kept and the others are hidden, once by ones and once by zeros. The mask is read in
the right way if attention looks at kept tokens alone. Where no attention is hidden, it is read in
the right way if a kept token of a text has an effect on the outputs, and a hidden one has none
that it would have if it were kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from palrp_onnx.analysis.inputs import lookups, table_rows
from palrp_onnx.analysis.roles import Role
from palrp_onnx.errors import PalrpError
from palrp_onnx.model.values import is_float
from palrp_onnx.session import Session
from palrp_onnx.types import Array, Feeds

#: Tokens where their number is free; the kept ones come first, and one of them is changed.
_TOKENS, _KEPT, _CHANGED = 4, 2, 1
#: The smallest share of attention to a token that is seen, the largest to one that is hidden.
_SEEN, _HIDDEN = 1e-3, 1e-6


def keeping_entry(graph: ir.Graph, roles: Mapping[str, Role], mask: str) -> int | None:
    """The entry of ``mask`` that keeps a token, 1 or 0; ``None`` where runs do not show it.

    Args:
        graph: The graph.
        roles: The role of each of its inputs.
        mask: Name of an input that is a mask.
    """
    try:
        trial = _Trial(graph, roles)
        found = [entry for entry in (1, 0) if trial.shows(mask, entry)]
    except PalrpError:  # the graph does not run on this example
        return None
    return found[0] if len(found) == 1 else None


class _Trial:
    """Runs of a graph on a few tokens, with the attention of every softmax."""

    def __init__(self, graph: ir.Graph, roles: Mapping[str, Role]) -> None:
        self._inputs = [value for value in graph.inputs if not value.is_initializer()]
        self._roles = roles
        self._outputs = [value.name or "" for value in graph.outputs if is_float(value)]
        self._looks = [n.outputs[0].name or "" for n in graph if n.op_type == "Softmax"]
        tensors = (value.const_value for value in graph.initializers.values())
        folders = (Path(t.base_dir) for t in tensors if isinstance(t, ir.ExternalTensor))
        proto = ir.to_proto(ir.Model(graph, ir_version=10))
        inner = set(self._looks) - {value.name for value in proto.graph.output}
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(inner))
        self._session = Session(
            proto.SerializeToString(), next(folders, Path()), optimise=False, prepack=False
        )

    def shows(self, mask: str, entry: int) -> bool:
        """Whether kept tokens are seen and hidden ones are not, if ``entry`` keeps a token."""
        feeds = {value.name or "": self._array(value) for value in self._inputs}
        count = feeds[mask].shape[-1] if feeds[mask].ndim else 1
        if count <= _KEPT:
            return False
        feeds[mask][:] = 1 - entry
        feeds[mask][..., :_KEPT] = entry
        if self._looks_only_at_kept(feeds, count):
            return True
        whole = {**feeds, mask: np.full_like(feeds[mask], entry)}
        # Not the last token, which has no effect on others where a text is read from left to right.
        hidden = max(_KEPT, min((_KEPT + count) // 2, count - 2))
        return any(
            self._effect(feeds, value, _CHANGED) > 0
            and self._effect(feeds, value, hidden) == 0
            and self._effect(whole, value, hidden) > 0
            for value in self._inputs
            if self._roles[value.name or ""] is Role.CONTENT
            and feeds[value.name or ""].shape[-1:] == (count,)
        )

    def _looks_only_at_kept(self, feeds: Feeds, count: int) -> bool:
        looks = self._session.run(self._looks, feeds).values()
        seen = [
            array.reshape(-1, count).max(axis=0, initial=0.0)
            for array in looks
            if array.shape[-1] == count
        ]
        return any(each[:_KEPT].min() > _SEEN and each[_KEPT:].max() < _HIDDEN for each in seen)

    def _array(self, value: ir.Value) -> Array:
        kind = np.dtype(np.float32 if value.dtype is None else value.dtype.numpy())
        dims = enumerate(value.shape or (None, None))
        free = {0: 1} if value.shape is None or value.shape.rank() > 1 else {}
        shape = [d if isinstance(d, int) and d > 0 else free.get(k, _TOKENS) for k, d in dims]
        count = np.arange(shape[-1] if shape else 1)
        match self._roles[value.name or ""]:
            case Role.CONTENT:
                row = count % self._rows(value)
            case Role.POSITION:
                row = count
            case Role.MASK:
                row = np.ones_like(count)
            case _:
                row = np.zeros_like(count)
        return np.ascontiguousarray(np.broadcast_to(row, shape)).astype(kind)

    def _rows(self, value: ir.Value) -> int:
        return min((rows for rows in map(table_rows, lookups(value)) if rows), default=2)

    def _effect(self, feeds: Feeds, value: ir.Value, place: int) -> float:
        """The largest change of an output, other than in the row of the token that is changed."""
        array = feeds[value.name or ""].copy()
        array[..., place] = (array[..., place] + 1) % self._rows(value)
        changed, count = {**feeds, value.name or "": array}, array.shape[-1]
        before, after = (self._session.run(self._outputs, each) for each in (feeds, changed))
        effects = [0.0]
        for name, values in before.items():
            difference = np.abs(np.asarray(after[name] - values, np.float64))
            if difference.ndim > 1 and difference.shape[1] == count:
                difference = np.delete(difference, place, axis=1)
            effects.append(float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0)))
        return max(effects)
