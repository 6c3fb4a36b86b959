"""The model's own outputs: the file as it is, without the explanation."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from palrp_onnx.model.joining import parts_in
from palrp_onnx.model.open import Model, parse_model
from palrp_onnx.runtime.forward import FileForward
from palrp_onnx.session import Session
from palrp_onnx.types import Array


class OwnOutputs:
    """Computes all outputs of a file in one run; of an encoder and a decoder each by itself.

    Args:
        model: The opened model.
        device: ``cpu`` or ``cuda[:N]``.

    Raises:
        ModelError: The runtime cannot load the file.
    """

    def __init__(self, model: Model, *, device: str) -> None:
        file = parse_model(model.path)
        self.names = [each.name for each in model.outputs]
        self._removed = model.removed
        self._session: Session | None = None
        self._parts: dict[str, FileForward] = {}
        if parts_in(file):
            self._parts = {name: FileForward(model, name, device=device) for name in self.names}
        else:
            data = ir.serde.serialize_model(file).SerializeToString()
            self._session = Session(data, model.folder, device=device)

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once.

        Raises:
            RunError: The model does not run on this input.
        """
        if self._session is None:
            return {name: forward(feeds) for name, forward in self._parts.items()}
        samples = max((len(array) for array in feeds.values() if array.ndim), default=1)
        blanks = {blank.name: blank.array(samples) for blank in self._removed}
        return self._session.run(self.names, {**feeds, **blanks})
