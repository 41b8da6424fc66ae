"""What the Messages API refuses in a request, by public documentation of its two versions.

`check` returns the message of the 400 that the real API would send. It knows no HTTP, no threads and no batches.
"""

from __future__ import annotations

import re
from typing import Any

OLD_VERSION, NEW_VERSION = "2023-06-01", "2026-10-21"
VERSIONS = (OLD_VERSION, NEW_VERSION)
THREADS_BETA = "message-threads-2026-08-12"
MODELS = (
    *("claude-fable-5-2", "claude-mythos-5-2", "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"),
    *("claude-fable-5-1", "claude-mythos-5-1", "claude-sonnet-5", "claude-fable-5", "claude-mythos-5", "claude-opus-5"),
    *("claude-opus-4-8", "claude-opus-4-7", "claude-opus-4-6", "claude-sonnet-4-6", "claude-haiku-4-5"),
    *("claude-haiku-4-5-20251001", "claude-opus-4-5", "claude-opus-4-5-20251101", "claude-sonnet-4-5"),
    "claude-sonnet-4-5-20250929",
    # A short name for tests that look at shapes only.
    "m",
)
FIELDS = frozenset(
    (
        *("model", "max_tokens", "messages", "system", "stop_sequences", "stream", "metadata", "cache_control"),
        *("output_config", "tools", "tool_choice", "thinking", "service_tier", "container", "diagnostics"),
        *("inference_geo", "speed", "user_profile_id", "workspace_id"),
    )
)
SAMPLING = frozenset(("temperature", "top_p", "top_k"))
# Fields that exist only with an anthropic-beta header.
BETA_FIELDS = frozenset(
    ("context_management", "mcp_servers", "fallbacks", "fallback_credit_token", "compaction", "billing_policy")
)
COUNT_FIELDS = FIELDS - {"max_tokens", "stream", "stop_sequences", "metadata", "service_tier", "container"}
MAX_TOKENS = 128_000
EFFORTS = ("low", "medium", "high", "xhigh", "max", None)
BLOCKS = {
    "user": ("text", "image", "document", "tool_result", "search_result", "container_upload", "tool_reference"),
    "assistant": ("text", "tool_use", "thinking", "redacted_thinking", "server_tool_use", "web_search_tool_result"),
    "system": ("text", "tool_addition", "tool_removal"),
}
NEEDED = {
    "text": ("text",),
    "image": ("source",),
    "document": ("source",),
    "tool_use": ("id", "name", "input"),
    "tool_result": ("tool_use_id",),
    "thinking": ("thinking", "signature"),
}
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
Json = dict[str, Any]


class RefusedError(Exception):
    """A request that the API answers with 400."""


def check(request: Any, *, version: str = NEW_VERSION, betas: frozenset[str] = frozenset()) -> str:
    """Return what the API would refuse in a request for a message; "" when nothing."""
    return _first_problem(request, version, betas, count=False)


def check_count(request: Any, *, version: str = NEW_VERSION, betas: frozenset[str] = frozenset()) -> str:
    """The same for a request that only counts tokens."""
    return _first_problem(request, version, betas, count=True)


def _first_problem(request: Any, version: str, betas: frozenset[str], *, count: bool) -> str:
    try:
        if not isinstance(request, dict):
            raise RefusedError("the body must be an object")
        _check_fields(request, version, betas, count=count)
        _check_settings(request)
        strict = is_strict(request, version)
        _check_thinking(request, strict=strict)
        _check_tools(request, strict=strict)
        _check_format(request)
        if not isinstance(request.get("thread"), dict):
            # What a thread holds is only known to its store, which checks the whole conversation.
            check_conversation(request["messages"], strict=strict)
    except RefusedError as refused:
        return str(refused)
    return ""


def is_strict(request: Json, version: str) -> bool:
    """Say whether the rules of today hold: the new version, or a model that never had the old ones."""
    return version == NEW_VERSION or "-5-5" in str(request.get("model"))


def _need(condition: object, message: str) -> None:
    if not condition:
        raise RefusedError(message)


def _check_fields(request: Json, version: str, betas: frozenset[str], *, count: bool) -> None:
    allowed = COUNT_FIELDS if count else FIELDS
    allowed = allowed | (BETA_FIELDS if betas else frozenset()) | ({"thread"} if THREADS_BETA in betas else set())
    if version == OLD_VERSION and not count:
        allowed = allowed | SAMPLING
    extra = sorted(set(request) - allowed)
    _need(not extra, f"{extra[0] if extra else ''}: Extra inputs are not permitted")
    for name in ("model", "messages", *(() if count else ("max_tokens",))):
        _need(name in request, f"{name}: Field required")
    if is_strict(request, version):
        sampling = sorted(SAMPLING & set(request))
        _need(not sampling, f"{sampling[0] if sampling else ''}: not supported by this model")
    if not count:
        tokens = request["max_tokens"]
        _need(isinstance(tokens, int) and not isinstance(tokens, bool), "max_tokens: Input should be a valid integer")
        _need(1 <= tokens <= MAX_TOKENS, f"max_tokens: {tokens}; allowed: 1 to {MAX_TOKENS}")


def _check_settings(request: Json) -> None:
    _need(isinstance(request["model"], str) and request["model"], "model: Input should be a valid string")
    _need(isinstance(request["messages"], list), "messages: Input should be a valid list")
    _need(isinstance(request.get("stream", False), bool), "stream: Input should be a valid boolean")
    system = request.get("system", "")
    _need(isinstance(system, str | list), "system: Input should be a valid string or list")
    if isinstance(system, list):
        _need(all(isinstance(block, dict) and block.get("type") == "text" for block in system), "system: text only")
    stops = request.get("stop_sequences", [])
    _need(isinstance(stops, list) and all(isinstance(s, str) and s.strip() for s in stops), "stop_sequences: not blank")
    metadata = request.get("metadata") or {}
    _need(isinstance(metadata, dict) and set(metadata) <= {"user_id"}, "metadata: Extra inputs are not permitted")
    _need(request.get("service_tier", "auto") in ("auto", "standard_only"), "service_tier: auto or standard_only")


def _check_thinking(request: Json, *, strict: bool) -> None:
    thinking = request.get("thinking")
    if thinking is None:
        return
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    _need(kind in ("adaptive", "enabled", "disabled", "between_tools"), "thinking.type: unknown")
    if strict:
        _need(kind != "disabled", "thinking: this model cannot disable thinking")
        _need("budget_tokens" not in thinking, "thinking.budget_tokens: not supported by this model")
    elif kind == "enabled":
        budget = thinking.get("budget_tokens")
        _need(isinstance(budget, int) and budget >= 1024, "thinking.enabled.budget_tokens: at least 1024")
        _need(budget < request.get("max_tokens", MAX_TOKENS), "max_tokens must be greater than thinking.budget_tokens")


def _check_tools(request: Json, *, strict: bool) -> None:
    tools = request.get("tools", [])
    _need(isinstance(tools, list), "tools: Input should be a valid list")
    names = set()
    for index, tool in enumerate(tools):
        _need(isinstance(tool, dict), f"tools.{index}: Input should be an object")
        name = tool.get("name")
        _need(
            isinstance(name, str) and _TOOL_NAME.fullmatch(name), f"tools.{index}.name: pattern [a-zA-Z0-9_-]{{1,128}}"
        )
        _need(name not in names, f"tools: Tool names must be unique: {name}")
        names.add(name)
        if tool.get("type") in (None, "custom"):
            schema = tool.get("input_schema")
            _need(
                isinstance(schema, dict) and schema.get("type") == "object", f"tools.{index}.input_schema.type: object"
            )
    choice = request.get("tool_choice")
    if choice is None:
        return
    kind = choice.get("type") if isinstance(choice, dict) else None
    _need(kind in ("auto", "none", "any", "tool"), "tool_choice.type: unknown")
    _need(tools or kind == "none" or request.get("thread"), "tool_choice may only be specified while providing tools")
    if kind in ("any", "tool"):
        _need(not strict, f"tool_choice: type {kind} (forced tool use) is not supported by this model")
    if kind == "tool":
        _need(choice.get("name") in names, f"tool_choice.name: tool {choice.get('name')!r} not found in tools")


def _check_format(request: Json) -> None:
    config = request.get("output_config")
    if config is None:
        return
    _need(isinstance(config, dict) and set(config) <= {"effort", "format"}, "output_config: effort and format only")
    _need(config.get("effort") in EFFORTS, "output_config.effort: low, medium, high, xhigh or max")
    form = config.get("format")
    if form is None:
        return
    _need(isinstance(form, dict) and form.get("type") == "json_schema", "output_config.format.type: json_schema")
    _need(isinstance(form.get("schema"), dict), "output_config.format.schema: Field required")
    _check_schema(form["schema"])


def _check_schema(schema: Any) -> None:
    if isinstance(schema, list):
        for item in schema:
            _check_schema(item)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object":
        message = (
            "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly set to false"
        )
        _need(schema.get("additionalProperties") is False, message)
    for value in schema.values():
        _check_schema(value)


def check_conversation(messages: list[Any], *, strict: bool = True) -> None:
    """Check a whole conversation.

    Raises:
        RefusedError: an empty one, a wrong role or block, a tool_result without its tool_use or the other way round,
            or a last turn of the assistant.
    """
    _need(messages, "messages: at least one message is required")
    open_calls: list[str] = []
    for index, turn in enumerate(messages):
        _need(isinstance(turn, dict), f"messages.{index}: Input should be an object")
        role, content = turn.get("role"), turn.get("content")
        _need(role in BLOCKS, f"messages.{index}.role: user, assistant or system")
        extra = sorted(set(turn) - {"role", "content", *(("clear_at", "output_config") if role == "system" else ())})
        _need(not extra, f"messages.{index}.{extra[0] if extra else ''}: Extra inputs are not permitted")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        _need(isinstance(blocks, list) and blocks, f"messages.{index}: content must be non-empty")
        for number, block in enumerate(blocks):
            _check_block(block, role, f"messages.{index}.content.{number}")
        if role != "system":
            open_calls = _check_calls(blocks, role, open_calls, index)
    first = next((turn["role"] for turn in messages if turn["role"] != "system"), "")
    _need(first == "user", "messages: first message must use the user role")
    if strict:
        message = (
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
        _need(messages[-1]["role"] != "assistant", message)


def _check_block(block: Any, role: str, place: str) -> None:
    _need(isinstance(block, dict), f"{place}: Input should be an object")
    kind = block.get("type")
    _need(kind in BLOCKS[role], f"{place}.type: {kind!r} is not allowed in a turn of the {role}")
    for name in NEEDED.get(str(kind), ()):
        _need(name in block, f"{place}.{kind}.{name}: Field required")
    if kind == "text":
        _need(
            isinstance(block["text"], str) and block["text"].strip(), f"{place}: text content blocks must be non-empty"
        )


def _check_calls(blocks: list[Json], role: str, open_calls: list[str], index: int) -> list[str]:
    """Match results with the calls of the turn before; returns the calls that this turn opens."""
    if role == "assistant":
        _need(not open_calls, f"messages.{index}: `tool_use` ids were found without `tool_result` blocks: {open_calls}")
        return [block["id"] for block in blocks if block["type"] == "tool_use"]
    results = [block for block in blocks if block["type"] == "tool_result"]
    _need(blocks[: len(results)] == results, f"messages.{index}: tool_result blocks must come first")
    told = [block["tool_use_id"] for block in results]
    for one in told:
        message = f"messages.{index}: unexpected `tool_use_id` found in `tool_result` blocks: {one}"
        _need(one in open_calls, f"{message}. Each `tool_result` must have a `tool_use` block in the previous message")
    _need(len(set(told)) == len(told), f"messages.{index}: more than one `tool_result` for one `tool_use`")
    left = [one for one in open_calls if one not in told]
    _need(
        not left, f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: {left}"
    )
    return []
