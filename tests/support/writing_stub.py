"""The strict Messages stub as a teacher that writes: new examples, second answers and verdicts, by what it is asked.

Item k is "What is the code of item k?" and its response "code-k". It knows no gateway.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from support.messages_http import serve
from support.messages_stub import MessagesStub, text

Json = dict[str, Any]
_COUNT = re.compile(r"Write (\d+) new training examples")
_ITEM = re.compile(r"item (\d+)")


@dataclass
class WritingStub(MessagesStub):
    """`doubted` are items whose second answer is another one; `grader` is that of all examples.

    `raw` are texts that are given instead of the next examples, one a request.
    """

    grader: str = "exact"
    written: int = 0
    doubted: set[int] = field(default_factory=set)
    raw: list[str] = field(default_factory=list)
    # What was asked for, by form.
    wishes: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    cases: list[str] = field(default_factory=list)

    def write(self, count: int) -> list[Json]:
        """Return the next items as examples."""
        start, self.written = self.written, self.written + count
        return [write_item(number, self.grader) for number in range(start, start + count)]

    def _message(self, request: Json) -> Json:
        form = request.get("output_config", {}).get("format", {}).get("schema", {}).get("properties", {})
        prompt = request["messages"][-1]["content"]
        if "examples" in form:
            self.wishes.append(prompt)
            found = _COUNT.search(prompt)
            assert found is not None
            examples = json.dumps({"examples": self.write(int(found[1]))})
            self.replies.insert(0, [text(self.raw.pop(0) if self.raw else examples)])
        elif "answers" in form:
            self.questions.append(prompt)
            self.replies.insert(0, [text(json.dumps({"answers": self._answer_again(prompt)}))])
        elif "agrees" in form:
            self.cases.append(prompt)
            agrees = "otherwise" not in prompt
            self.replies.insert(0, [text(json.dumps({"reason": "as it is", "agrees": agrees}))])
        return super()._message(request)

    def _answer_again(self, prompt: str) -> list[Json]:
        asked = json.loads(prompt.rpartition("Queries: ")[2])
        answers = []
        for row in asked:
            found = _ITEM.search(row["query"])
            number = int(found[1]) if found else -1
            said = "otherwise" if number in self.doubted else f"code-{number}"
            answers.append({"number": row["number"], "response": said})
        return answers


def write_item(number: int, grader: str = "exact") -> Json:
    """Return one item as an example."""
    return {"query": f"What is the code of item {number}?", "response": f"code-{number}", "grader": grader}


@asynccontextmanager
async def serve_writing() -> AsyncIterator[WritingStub]:
    """Serve the stub on a free loopback port."""
    stub = WritingStub()
    async with serve(stub.handle) as stub.url:
        try:
            yield stub
        finally:
            stub.hold.set()
