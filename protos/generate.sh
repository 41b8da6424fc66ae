#!/usr/bin/env bash
# Regenerate protos/gen from protos/shammah/v1. The only way to change the generated code.
set -euo pipefail
cd "$(dirname "$0")"
PYTHON="${PYTHON:-../.venv/bin/python}"
out="${1:-gen}"
bin="$(cd "$(dirname "$PYTHON")" && pwd)"
PATH="$bin:$PATH"
mkdir -p "$out/shammah/v1"
"$bin/$(basename "$PYTHON")" -m grpc_tools.protoc -I . \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="$out" --mypy_grpc_out="$out" \
  shammah/v1/*.proto
touch "$out/shammah/py.typed" "$out/shammah/__init__.py" "$out/shammah/v1/__init__.py"
