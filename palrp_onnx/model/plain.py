"""From the graph of a file to its plain form: the list of passes, with the needs of each.

A pass rewrites a graph in place and returns the log of its changes. Passes that only sort nodes,
store constants, or enter names, types and shapes return an empty log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import onnx_ir.passes.common as common

from palrp_onnx.errors import ModelError, is_lack_of_memory
from palrp_onnx.model.changes import Changes
from palrp_onnx.model.declared import infer_shapes, normalise_declared
from palrp_onnx.model.locate import real_files
from palrp_onnx.model.lowering import lower
from palrp_onnx.model.passes.bfloat16 import widen
from palrp_onnx.model.passes.branches import write_out_constant
from palrp_onnx.model.passes.caches import remove_caches, remove_switches
from palrp_onnx.model.passes.functions import write_out_standard_functions
from palrp_onnx.model.passes.hidden_states import name_hidden_states
from palrp_onnx.model.passes.opset import raise_opset
from palrp_onnx.model.passes.sequences import replace_sequences

#: Rewrites a model in place and returns the log of its changes.
Rewriting = Callable[[ir.Model], Changes]
#: A condition on a model.
Condition = Callable[[ir.Model], bool]


# --- needs of passes -----------------------------------------------------------------------------
def without_functions(model: ir.Model) -> bool:
    """No node calls a function of the file."""
    called = {node.op_identifier() for node in model.graph.all_nodes()}
    return called.isdisjoint(model.functions)


def constants_stored(model: ir.Model) -> bool:
    """No node reads a ``Constant``: constants are initializers, except for graph outputs."""
    read = (v.producer() for node in model.graph.all_nodes() for v in node.inputs if v is not None)
    return all(maker is None or maker.op_type != "Constant" for maker in read)


def in_order(model: ir.Model) -> bool:
    """Every node comes after the nodes whose results it reads."""
    done: set[ir.Node] = set()
    for node in model.graph:
        makers = (v.producer() for v in node.inputs if v is not None)
        if any(m is not None and m.graph is model.graph and m not in done for m in makers):
            return False
        done.add(node)
    return True


@dataclass(frozen=True)
class Pass:
    """One pass.

    Attributes:
        apply: Rewrites the model.
        needs: Conditions that must be true before.
        rewrites: Whether it may change how a value is computed; the log of one that may not is
            always empty.
    """

    apply: Rewriting
    needs: tuple[Condition, ...] = ()
    rewrites: bool = True


# --- the passes ----------------------------------------------------------------------------------
def _tidying(tidy: Callable[[ir.Model], object], *needs: Condition) -> Pass:
    """A pass that does not change how a value is computed; its log is empty."""

    def apply(model: ir.Model) -> Changes:
        tidy(model)
        return Changes()

    return Pass(apply, needs, rewrites=False)


def _write_out_functions(model: ir.Model) -> Changes:
    """Inline the file's own functions; the log counts calls."""
    result = common.InlinePass()(model)
    assert isinstance(result, common.inliner.InlinePassResult)
    return Changes.of(
        {f"{domain}.{name}".lstrip("."): n for (domain, name, _), n in result.id_count.items()}
    )


def _resolve_aliases(model: ir.Model) -> None:
    """Replace copies of values by these, in a graph without subgraphs.

    The common pass cannot follow a copy of a value that leaves a subgraph.
    """
    if not any(True for _ in model.graph.subgraphs()):
        common.IdentityEliminationPass()(model)


def _raise_opset(path: Path, opset: int) -> Rewriting:
    """A pass that raises the graph to ``opset``, where its own is older."""

    def apply(model: ir.Model) -> Changes:
        changes = raise_opset(model, opset, str(path))
        ir.external_data.set_base_dir(model.graph, real_files(path)[0].parent)
        return changes

    return apply


_STORE = _tidying(
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    without_functions,
)
_INLINE = (
    Pass(_write_out_functions),
    Pass(write_out_standard_functions, (without_functions,)),
    _STORE,
)
_REWRITE = (
    Pass(write_out_constant, (constants_stored,)),
    _tidying(common.TopologicalSortPass()),
    _STORE,
    Pass(replace_sequences, (constants_stored, in_order)),
    Pass(widen, (constants_stored,)),
    Pass(lower, (constants_stored, in_order)),
)
_FINISH = (
    _STORE,
    _tidying(_resolve_aliases, without_functions),
    _tidying(name_hidden_states),
    _tidying(infer_shapes, constants_stored, in_order),
)
#: The passes for a plain graph that was rewritten. They leave its inputs as they are.
PLAIN = (*_INLINE, *_REWRITE, *_FINISH)


def from_file(path: Path, opset: int, *, past: bool = False) -> Sequence[Pass]:
    """The passes for the graph of the file at ``path``, raised to at least ``opset``.

    With ``past``, caches stay, and so do the switches that decide on their use.
    """
    switches = () if past else (Pass(remove_switches, (without_functions,)),)
    caches = () if past else (Pass(remove_caches, (constants_stored,)),)
    return (
        _tidying(normalise_declared),
        *_INLINE,
        *switches,
        *_REWRITE,
        *caches,
        Pass(_raise_opset(path, opset), (without_functions,)),
        *_FINISH,
    )


def make_plain(
    model: ir.Model, path: Path, passes: Sequence[Pass], *, checked: bool = False
) -> Changes:
    """Run passes over ``model``, in place, and return the log of all their changes.

    Args:
        model: The model.
        path: The file, for errors.
        passes: In their order.
        checked: Whether to test the needs of each pass; tests do.

    Raises:
        ModelError: The graph is not well formed.
    """
    changes = Changes()
    for each in passes:
        if checked and not all(holds(model) for holds in each.needs):
            raise AssertionError(f"the needs of {each} are not met")
        try:
            changes.add(each.apply(model))
        except ModelError:
            raise
        except Exception as error:  # a cycle, a dangling input, an attribute of the wrong type
            if is_lack_of_memory(error):
                raise
            raise ModelError(
                "The graph is not well formed",
                place=str(path),
                hint=f"{type(error).__name__}: {error}",
            ) from error
    return changes
