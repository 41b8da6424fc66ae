"""How a session ends: the state and the words of it. It knows no planner."""

from __future__ import annotations

from typing import Literal

from shammah_chassis.errors import ShammahError

State = Literal["goal", "rounds", "budget", "no_data", "needs_exam", "no_gain", "planner", "unreachable", "failed"]
# After these the command exits with 1: what was asked for was not done, and a person must look.
BAD: frozenset[State] = frozenset({"unreachable", "failed"})
# A user who resumes after one of these says: look again, something changed (exam rows, examples, the world).
PASSABLE: frozenset[State] = frozenset(
    {"no_data", "needs_exam", "no_gain", "planner", "failed", "unreachable", "budget"}
)


class TeachingEndError(ShammahError):
    """Teaching stops here. Nothing is lost: the session can be resumed."""

    code = "teaching_ended"
    status = "FAILED_PRECONDITION"

    def __init__(self, state: State, reason: str) -> None:
        super().__init__(reason)
        self.state: State = state
