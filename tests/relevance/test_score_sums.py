"""Sums over attention scores, taken from the products on either side of the softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from building import Array, floats, opened, real
from committed import FILES, sample

from palrp_onnx import Explainer, Model
from palrp_onnx.compiler import graph
from palrp_onnx.prepare import plan_model
from palrp_onnx.relevance.methods import METHODS
from palrp_onnx.relevance.score_sums import ScoreSums, find_score_sums
from palrp_onnx.relevance.walk import walk

pytestmark = pytest.mark.quick
