"""Graders: is a response good, judged against the reference of its example? One module for gateway, trainer and tools.

`grade` and `grade_many` are in `registry`; each other file is one family of graders. Nothing here knows models, gRPC or
where examples come from.
"""

from __future__ import annotations

from shammah_chassis.grading.grade import Grade
from shammah_chassis.grading.protocols import Judge, JudgeVerdict, SimilarityModel
from shammah_chassis.grading.registry import grade, grade_many

__all__ = ["Grade", "Judge", "JudgeVerdict", "SimilarityModel", "grade", "grade_many"]
