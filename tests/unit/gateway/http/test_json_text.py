"""Replies with half of a surrogate pair in a text are still JSON."""

from __future__ import annotations

import json

import pytest
from shammah_gateway.http.json_text import JsonReply, is_whole_text, write_json
from shammah_gateway.http.openai_reply import write_frame

HALF = "half \ud83d of it"


@pytest.mark.parametrize("text", ["plain", "größer \U0001f600", HALF])
def test_every_text_goes_out_and_comes_back(text: str) -> None:
    assert json.loads(write_json({"text": text})) == {"text": text}
    assert json.loads(JsonReply({"text": text}).body) == {"text": text}
    assert json.loads(write_frame({"text": text}).removeprefix(b"data: ")) == {"text": text}


def test_utf8_is_left_as_it_is() -> None:
    assert write_json({"text": "größer"}) == '{"text":"größer"}'.encode()
    assert is_whole_text("größer \U0001f600")
    assert not is_whole_text(HALF)
