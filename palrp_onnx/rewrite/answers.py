"""An answer as one output: where it starts and where it ends.

The score of an answer is the sum of two entries, each of an output of its own. So the two outputs
are joined to one: the seed is then at two of its places, and nothing behind it needs code of its
own. Observations of the joined output follow from those of the two.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from palrp_onnx.analysis.analysis import Analysis
from palrp_onnx.analysis.observations import Observations
from palrp_onnx.model.changes import Changes
from palrp_onnx.model.ends import join_ends


def join_answer(facts: Analysis, ends: tuple[str, str]) -> tuple[Changes, Observations]:
    """Join the outputs of these names, in place; the log counts the new output.

    Args:
        facts: The analysis.
        ends: Names of the scores [B, T] of where an answer starts, and of where it ends.
    """
    joined = join_ends(facts.model.graph, ends)
    assert joined is not None
    one, other = (v for name in ends for v in facts.content if v.name == name)
    layouts = facts.layouts.layouts
    (*rest, first), last = layouts[one], layouts[other][-1]
    known = [facts.trial[name] for name in ends if name in facts.trial]
    trial = {joined.name or "": np.concatenate(known, axis=-1)} if len(known) > 1 else {}
    *before, length = facts.shapes[one]
    seen = replace(
        facts,
        model=replace(facts.model, ends=ends),
        content={**facts.content, joined: None},
        axes={**facts.axes, joined: facts.axes[one]},
        layouts=replace(facts.layouts, layouts={**layouts, joined: (*rest, (*first, *last))}),
        depth={**facts.depth, joined: max(facts.depth[one], facts.depth[other])},
        trial={**facts.trial, **trial},
        shapes={**facts.shapes, joined: (*before, 2 * length)},
    )
    return Changes.of({"outputs joined": 1}), seen
