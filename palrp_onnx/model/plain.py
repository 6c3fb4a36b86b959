"""From the graph of a file to its plain form: the passes, in their order, and what each needs.

A pass rewrites a graph in place and returns the log of what it changed, empty where it changed
nothing. Passes that only sort, name or type what is there change nothing in that sense.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.version_converter
import onnx_ir as ir
import onnx_ir.passes.common as common

from palrp_onnx.errors import ModelError
from palrp_onnx.model.changes import Changes
from palrp_onnx.model.declared import infer_shapes, keep_what_binds
from palrp_onnx.model.lowering import lower
from palrp_onnx.model.passes.bfloat16 import widen
from palrp_onnx.model.passes.branches import take_constant_branches
from palrp_onnx.model.passes.caches import take_out_caches, take_out_switches

#: Rewrites a model in place; what it changed.
Rewriting = Callable[[ir.Model], Changes]
#: Whether something holds of a model.
Condition = Callable[[ir.Model], bool]


# --- what passes need ----------------------------------------------------------------------------
def without_functions(model: ir.Model) -> bool:
    """No node calls a function of the file."""
    called = {node.op_identifier() for node in model.graph.all_nodes()}
    return called.isdisjoint(model.functions)


def constants_stored(model: ir.Model) -> bool:
    """No node reads a ``Constant``: constants are initializers, but for those given out."""
    read = (v.producer() for node in model.graph.all_nodes() for v in node.inputs if v is not None)
    return all(maker is None or maker.op_type != "Constant" for maker in read)


def in_order(model: ir.Model) -> bool:
    """Every node comes behind those that it reads."""
    done: set[ir.Node] = set()
    for node in model.graph:
        makers = (v.producer() for v in node.inputs if v is not None)
        if any(m is not None and m.graph is model.graph and m not in done for m in makers):
            return False
        done.add(node)
    return True


@dataclass(frozen=True)
class Pass:
    """One step to a plainer graph.

    Attributes:
        apply: Rewrites the model.
        needs: What has to hold before.
        rewrites: Whether it may change how something is computed; one that does not never logs
            anything.
    """

    apply: Rewriting
    needs: tuple[Condition, ...] = ()
    rewrites: bool = True


# --- the passes ----------------------------------------------------------------------------------
def _tidying(tidy: Callable[[ir.Model], object], *needs: Condition) -> Pass:
    """A pass that changes nothing in how something is computed."""

    def apply(model: ir.Model) -> Changes:
        tidy(model)
        return Changes()

    return Pass(apply, needs, rewrites=False)


def _write_out_functions(model: ir.Model) -> Changes:
    """Calls of the file's own functions, replaced by their nodes."""
    result = common.InlinePass()(model)
    assert isinstance(result, common.inliner.InlinePassResult)
    return Changes.of(
        {f"{domain}.{name}".lstrip("."): n for (domain, name, _), n in result.id_count.items()}
    )


def _resolve_aliases(model: ir.Model) -> None:
    """Let values that are copies of others be those, where no alias leaves a subgraph.

    The common pass cannot follow such; they stay, as nodes.
    """
    if not any(True for _ in model.graph.subgraphs()):
        common.IdentityEliminationPass()(model)


def _raise_opset(path: Path, opset: int) -> Rewriting:
    """Write the graph in a later opset, where its own is older."""

    def apply(model: ir.Model) -> Changes:
        before = model.opset_imports.get("", 0)
        if before >= opset:
            return Changes()
        try:
            newer = onnx.version_converter.convert_version(ir.to_proto(model), opset)
            model.graph = ir.from_proto(newer).graph
        except Exception as error:  # the converter's own exception types are not public
            raise ModelError(
                f"The graph cannot be raised to opset {opset}, which is needed to compile it",
                place=str(path),
                hint="Use --engine numpy.",
            ) from error
        ir.external_data.set_base_dir(model.graph, path.resolve().parent)
        return Changes.of({f"opset {before} to {opset}": 1})

    return apply


_STORE = _tidying(
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    without_functions,
)
_REWRITE = (
    Pass(_write_out_functions),
    _STORE,
    Pass(take_out_switches, (without_functions,)),
    Pass(take_constant_branches, (constants_stored,)),
    _tidying(common.TopologicalSortPass()),
    _STORE,
    Pass(widen, (constants_stored,)),
    Pass(lower, (constants_stored, in_order)),
    Pass(take_out_caches, (constants_stored,)),
)
_FINISH = (
    _STORE,
    _tidying(_resolve_aliases, without_functions),
    _tidying(infer_shapes, constants_stored, in_order),
)
#: The passes for a graph that was plain before it was rewritten.
PLAIN = (*_REWRITE, *_FINISH)


def from_file(path: Path, opset: int) -> Sequence[Pass]:
    """The passes for the graph as it is in the file at ``path``, which is raised to an opset."""
    raising = Pass(_raise_opset(path, opset), (without_functions,))
    return (_tidying(keep_what_binds), *_REWRITE, raising, *_FINISH)


def make_plain(
    model: ir.Model, path: Path, passes: Sequence[Pass], *, checked: bool = False
) -> Changes:
    """Run passes over ``model``, in place, and return the log of all that they changed.

    Args:
        model: The model.
        path: Where it is from, for errors.
        passes: In their order.
        checked: Whether what passes need is looked at; else the order is trusted.

    Raises:
        ModelError: The graph is not well formed.
    """
    changes = Changes()
    for each in passes:
        if checked and not all(holds(model) for holds in each.needs):
            raise AssertionError(f"{each} was run too early")
        try:
            changes.add(each.apply(model))
        except ModelError:
            raise
        except Exception as error:  # a cycle, a dangling input, an attribute of the wrong type
            raise ModelError(
                "The graph is not well formed",
                place=str(path),
                hint=f"{type(error).__name__}: {error}",
            ) from error
    return changes
