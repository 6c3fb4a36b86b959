"""Explain a data set: every record becomes one line of JSON, in the order of the input."""

from palrp_onnx.jobs.records import Record
from palrp_onnx.jobs.results import Line
from palrp_onnx.jobs.settings import Settings
from palrp_onnx.jobs.worker import Worker

__all__ = ["Line", "Record", "Settings", "Worker"]
