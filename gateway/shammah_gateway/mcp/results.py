"""What a tool call returns over MCP: the structured result, or a named error in words that a model can act on.

The single place where an exception of a tool becomes an MCP result.
"""

from __future__ import annotations

import json
import logging

from mcp_types import CallToolResult, TextContent
from pydantic import BaseModel
from shammah_chassis.errors import ShammahError

from shammah_gateway.mcp.words import ERROR_CODE_META, RETRY_AFTER_META

_log = logging.getLogger(__name__)


def write_result(result: BaseModel) -> CallToolResult:
    """Return a tool's result: structured, and the same as JSON text for clients that read only text."""
    # The job's own copy of the result would be the same words a second and a third time.
    values = result.model_dump(mode="json", exclude_none=True, exclude={"job": {"result_json"}})
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=values)


def write_error(error: Exception) -> CallToolResult:
    """Return an error as a result of the tool, so that the model sees it; what is no named error is masked."""
    if not isinstance(error, ShammahError):
        _log.error("a tool failed unexpectedly", exc_info=error)
        error = ShammahError("internal error")
    else:
        _log.info("%s: %s", error.code, error.message)
    meta: dict[str, object] = {ERROR_CODE_META: error.code}
    if error.retry_after_seconds is not None:
        meta[RETRY_AFTER_META] = error.retry_after_seconds
    text = f"{error.code}: {error.message}"
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True, _meta=meta)
