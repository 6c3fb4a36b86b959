"""Columns of Parquet files are the keys of the record."""

from __future__ import annotations

from typing import Any

import pytest

from palrp_onnx.jobs.results import Explained, Failure
from palrp_onnx.jobs.tables import _schema
from palrp_onnx.record import (
    InputFacts,
    Map,
    ModelFacts,
    OffMap,
    Prediction,
    Relevance,
    Run,
    Site,
    TargetFacts,
    Units,
    Unread,
)

pytestmark = pytest.mark.quick

PLACES = {
    "model": ModelFacts,
    "run": Run,
    "input": InputFacts,
    "input.unread": Unread,
    "target": TargetFacts,
    "units": Units,
    "relevance": Relevance,
    "relevance.off_map": OffMap,
    "sites": Site,
    "others": Map,
    "prediction": Prediction,
    "error": Failure,
}
#: Lines of a batch have neither times nor checks.
ABSENT = {"run": {"ms", "date"}, "": {"checks"}}


def test_no_key_of_the_record_is_lost() -> None:
    schema = _schema(pytest.importorskip("pyarrow"))
    assert {*schema.names} == {*Explained.__struct_fields__, "error"} - ABSENT[""]
    for place, kind in PLACES.items():
        first, *inner = place.split(".")
        column: Any = schema.field(first).type
        for name in inner:
            column = column.field(name).type
        column = getattr(column, "value_type", column)
        found = {column.field(k).name for k in range(column.num_fields)}
        assert found == {*kind.__struct_fields__} - ABSENT.get(place, set()), place
