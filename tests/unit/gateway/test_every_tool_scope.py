"""Every tool is refused without its scope, and needs no other; audits need theirs, and a budget."""

from __future__ import annotations

from typing import cast

import pytest
from shammah_chassis.errors import ForbiddenError, ShammahError
from shammah_chassis.scopes import GRANTABLE, Caller
from shammah_gateway.tools.context import ToolContext
from shammah_gateway.tools.registry import TOOLS, call_tool
from support.gateway import Bench, ask

NOTHING = cast("ToolContext", None)
# Refused before anything is looked at, so that a missing scope tells nothing of what there is.
WRONG = {"no_such_field": 1}


@pytest.mark.parametrize("name", TOOLS)
async def test_a_tool_is_refused_without_its_scope_whatever_else_is_granted(name: str) -> None:
    scope = TOOLS[name].scope
    others = Caller("claude", frozenset(GRANTABLE) - {scope})
    with pytest.raises(ForbiddenError, match=f"needs the scope '{scope}'.*shammah tokens grant claude {scope}$"):
        await call_tool(NOTHING, others, name, WRONG)
    with pytest.raises(ShammahError, match="no_such_field"):
        await call_tool(NOTHING, Caller("claude", frozenset({scope})), name, WRONG)


@pytest.mark.parametrize(("may_audit", "audits"), [(True, 1), (False, 0)])
async def test_a_local_answer_is_audited_only_for_who_has_the_scope(may_audit: bool, audits: int) -> None:
    bench = Bench(audit_rate=1.0)
    answer = await bench.cascade.ask(ask(may_audit=may_audit))
    await bench.learner.wait_idle(5)
    assert answer.route == "local" and len(bench.port.asked) == audits
    assert [example.provenance.origin for example in bench.sink.examples] == ["audit"] * audits


async def test_a_spent_budget_leaves_audits_out_and_the_answer_as_it_is() -> None:
    bench = Bench(audit_rate=1.0, max_calls=1)
    for _ in range(3):
        assert (await bench.cascade.ask(ask())).route == "local"
        await bench.learner.wait_idle(5)
    assert len(bench.port.asked) == 1 and len(bench.sink.examples) == 1
