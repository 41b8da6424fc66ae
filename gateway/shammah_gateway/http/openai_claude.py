"""A chat completions request as a body of Claude's Messages API.

It translates messages, tools, tool calls and results, images and structured output. Sampling fields are never
written: Claude refuses them. It knows no HTTP and no cascade.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from shammah_gateway.http.openai_wire import ChatInputError, ChatRequest, text_of

Block = dict[str, Any]
_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+);base64,(?P<data>.+)", re.DOTALL)
# Claude takes only these characters in the id of a tool call.
_NOT_ID = re.compile(r"[^a-zA-Z0-9_-]")
_EFFORT = {
    **{"none": "low", "minimal": "low", "low": "low", "medium": "medium"},
    **{"high": "high", "xhigh": "xhigh", "max": "max"},
}
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}
# Where a JSON schema has schemas: below a keyword, or below names of the caller.
_SCHEMAS = ("items", "prefixItems", "anyOf", "allOf", "oneOf", "not")
_NAMED_SCHEMAS = ("properties", "$defs", "definitions")
# OpenAI's "json_object" has no counterpart: any object, without a schema.
JSON_OBJECT_RULE = "Answer with one JSON object and nothing else: no explanation and no code fence."


def write_claude_body(chat: ChatRequest, *, model: str, default_max_tokens: int) -> dict[str, Any]:
    """Return the body of `POST /v1/messages` that asks the same of Claude.

    `default_max_tokens` is taken where the caller gave no limit, as Claude needs one.

    Raises:
        ChatInputError: a tool, an image or a format that can't be translated; it names the field.
    """
    raw = chat.raw
    system, turns = _write_turns(chat.messages)
    body: dict[str, Any] = {"model": model, "max_tokens": chat.max_tokens or default_max_tokens, "messages": turns}
    output, rule = _write_output(raw)
    system.extend([rule] if rule else [])
    if system:
        body["system"] = "\n\n".join(system)
    if chat.stop:
        body["stop_sequences"] = _write_stops(chat.stop)
    if raw.get("tools"):
        body["tools"] = [_write_tool(tool, f"tools[{index}]") for index, tool in enumerate(_as_list(raw, "tools"))]
        body |= _write_choice(raw)
    if output:
        body["output_config"] = output
    if user := raw.get("safety_identifier") or raw.get("user"):
        body["metadata"] = {"user_id": str(user)}
    if chat.stream:
        body["stream"] = True
    return body


def _write_stops(stops: Sequence[str]) -> list[str]:
    if not all(stop.strip() for stop in stops):
        raise ChatInputError("stop: Claude takes no stop sequence of blanks only", param="stop")
    return list(stops)


def _write_turns(messages: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[Block]]:
    """Return the system texts and the turns: neighbours of one author are one turn, tool results come first in it."""
    system: list[str] = []
    turns: list[Block] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if message["role"] in ("system", "developer"):
            system.extend([text] if (text := text_of(message["content"])).strip() else [])
            continue
        author = "assistant" if message["role"] == "assistant" else "user"
        blocks = _write_blocks(message, where)
        if turns and turns[-1]["role"] == author:
            turns[-1]["content"].extend(blocks)
        elif blocks:
            turns.append({"role": author, "content": blocks})
    if not turns:
        raise ChatInputError("messages needs a user message with text", param="messages")
    for turn in turns:
        # A single text is written as a plain text: the shorter form means the same.
        if len(turn["content"]) == 1 and turn["content"][0]["type"] == "text":
            turn["content"] = turn["content"][0]["text"]
    return system, turns


def _write_blocks(message: Mapping[str, Any], where: str) -> list[Block]:
    if message["role"] == "tool":
        content = message["content"]
        result = {"type": "tool_result", "tool_use_id": _write_id(message["tool_call_id"]), "content": text_of(content)}
        return [result]
    blocks = _write_parts(message.get("content"), f"{where}.content")
    for index, call in enumerate(message.get("tool_calls") or ()):
        blocks.append(_write_call(call, f"{where}.tool_calls[{index}]"))
    return blocks


def _write_parts(content: str | Sequence[Mapping[str, Any]] | None, where: str) -> list[Block]:
    """Return the blocks of a content; blank texts are left out, as Claude refuses them."""
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content}] if content and content.strip() else []
    blocks: list[Block] = []
    for index, part in enumerate(content):
        if part["type"] == "image_url":
            blocks.append(_write_image(part, f"{where}[{index}]"))
        elif part["type"] == "file":
            blocks.append(_write_file(part, f"{where}[{index}]"))
        elif part[part["type"]].strip():
            blocks.append({"type": "text", "text": part[part["type"]]})
    return blocks


def _write_image(part: Mapping[str, Any], where: str) -> Block:
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else None
    if isinstance(url, str) and (found := _DATA_URL.fullmatch(url)):
        source = {"type": "base64", "media_type": found["type"], "data": found["data"]}
    elif isinstance(url, str) and url.startswith(("https://", "http://")):
        source = {"type": "url", "url": url}
    else:
        raise ChatInputError(
            "an image needs a url: https://... or data:image/...;base64,...", param=f"{where}.image_url.url"
        )
    return {"type": "image", "source": source}


def _write_file(part: Mapping[str, Any], where: str) -> Block:
    file = part.get("file")
    data = file.get("file_data") if isinstance(file, dict) else None
    found = _DATA_URL.fullmatch(data) if isinstance(data, str) else None
    if found is None or found["type"] != "application/pdf":
        raise ChatInputError(
            "a file needs file_data: data:application/pdf;base64,...; file ids are not known here",
            param=f"{where}.file",
        )
    block: Block = {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": found["data"]},
    }
    name = part["file"].get("filename")
    return {**block, "title": name} if isinstance(name, str) and name else block


def _write_call(call: Mapping[str, Any], where: str) -> Block:
    arguments = call["function"].get("arguments") or "{}"
    try:
        given = json.loads(arguments)
    except (TypeError, ValueError):
        given = None
    if not isinstance(given, dict):
        place = f"{where}.function.arguments"
        raise ChatInputError(f"{place} must be the text of a JSON object", param=place)
    return {"type": "tool_use", "id": _write_id(call["id"]), "name": call["function"]["name"], "input": given}


def _write_tool(tool: object, where: str) -> Block:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ChatInputError(f"{where} must have type function and function.name", param=where)
    schema = function.get("parameters") or {"properties": {}}
    if not isinstance(schema, dict):
        raise ChatInputError(f"{where}.function.parameters must be a JSON schema", param=f"{where}.function.parameters")
    written: Block = {"name": function["name"], "input_schema": {"type": "object", **schema}}
    if function.get("description"):
        written["description"] = function["description"]
    if function.get("strict"):
        written["strict"] = True
    return written


def _write_choice(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return `{"tool_choice": ...}`, or nothing when the caller left it to the model."""
    choice = raw.get("tool_choice")
    one_at_a_time = raw.get("parallel_tool_calls") is False
    written: dict[str, Any]
    if choice is None and not one_at_a_time:
        return {}
    if choice is None or (isinstance(choice, str) and choice in _CHOICES):
        written = {"type": _CHOICES[choice or "auto"]}
    elif isinstance(choice, dict) and choice.get("type") == "function" and isinstance(choice.get("function"), dict):
        written = {"type": "tool", "name": choice["function"].get("name")}
    else:
        raise ChatInputError("tool_choice must be auto, none, required or a function", param="tool_choice")
    if one_at_a_time and written["type"] != "none":
        written["disable_parallel_tool_use"] = True
    return {"tool_choice": written}


def _write_output(raw: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return `output_config`, and a rule for the system text where Claude has no field for it."""
    output: dict[str, Any] = {}
    rule = ""
    effort = raw.get("reasoning_effort")
    if effort is not None:
        if effort not in _EFFORT:
            raise ChatInputError(
                f"reasoning_effort {effort!r} is not known; allowed: {', '.join(_EFFORT)}", param="reasoning_effort"
            )
        output["effort"] = _EFFORT[effort]
    form = raw.get("response_format") or {"type": "text"}
    if form.get("type") == "json_schema":
        wanted = form.get("json_schema")
        schema = wanted.get("schema") if isinstance(wanted, dict) else None
        if not isinstance(schema, dict):
            place = "response_format.json_schema.schema"
            raise ChatInputError(f"{place} is missing: a JSON schema", param=place)
        output["format"] = {"type": "json_schema", "schema": close_objects(schema)}
    elif form.get("type") == "json_object":
        rule = JSON_OBJECT_RULE
    elif form.get("type") != "text":
        raise ChatInputError(
            f"response_format {form.get('type')!r} is not known; allowed: text, json_object, json_schema",
            param="response_format.type",
        )
    return output, rule


def close_objects(schema: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return a schema whose objects allow no further properties where they say nothing of it: Claude wants that."""
    if isinstance(schema, list):
        return [close_objects(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    closed = dict(schema)
    for key, value in schema.items():
        if key in _SCHEMAS:
            closed[key] = close_objects(value)
        elif key in _NAMED_SCHEMAS and isinstance(value, dict):
            closed[key] = {name: close_objects(entry) for name, entry in value.items()}
    if schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def _write_id(call_id: str) -> str:
    return _NOT_ID.sub("_", call_id)


def _as_list(raw: Mapping[str, Any], name: str) -> list[Any]:
    value = raw[name]
    if not isinstance(value, list):
        raise ChatInputError(f"{name} must be a list", param=name)
    return value
