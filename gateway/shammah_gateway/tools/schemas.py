"""Inputs and results of the five tools in one place, for those who need both. It adds nothing to them."""

from __future__ import annotations

from shammah_gateway.tools.inputs import (
    AnalyzeInput,
    CompareInput,
    GenerateInput,
    OfferedInput,
    QueryInput,
    Strict,
    TrainInput,
)
from shammah_gateway.tools.results import (
    AnalyzeResult,
    CategoryAnalysis,
    CategoryExam,
    CompareResult,
    CurvePoint,
    GenerateResult,
    JobView,
    QueryResult,
    RejectedCount,
    RoleLoss,
    TrainResult,
)

__all__ = [
    "AnalyzeInput",
    "AnalyzeResult",
    "CategoryAnalysis",
    "CategoryExam",
    "CompareInput",
    "CompareResult",
    "CurvePoint",
    "GenerateInput",
    "GenerateResult",
    "JobView",
    "OfferedInput",
    "QueryInput",
    "QueryResult",
    "RejectedCount",
    "RoleLoss",
    "Strict",
    "TrainInput",
    "TrainResult",
]
