"""Which SHAMMAH_ variables somebody reads: the settings of every part, and what commands and clients look at.

The settings of a part are read from the text of its `config.py`: to import that of the trainer brings torch, which
takes seconds. It knows names, no values.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from shammah_chassis.errors import InvalidInputError, PreconditionError
from shammah_chassis.setting_names import describe_unknown, find_unknown

from shammah_local.plan import ROLES

PREFIX = "SHAMMAH_"
PARTS = (*ROLES, "trainer", "gateway")
# Of the command line, the client and `shammah mcp`; then those of the base models.
OF_COMMANDS = frozenset({"SHAMMAH_DATA_DIR", "SHAMMAH_GATEWAY", "SHAMMAH_TOKEN", "SHAMMAH_URL"})
OF_MODELS = frozenset({"SHAMMAH_MODELS_DIR", "SHAMMAH_BASE_GENERATOR", "SHAMMAH_BASE_ENCODER"})
# Of the programs in tests/bench, which start everything as a user does: any name.
OF_BENCHES = ("SHAMMAH_BENCH_", "SHAMMAH_STUDY_")


def refuse_unknown(names: Iterable[str]) -> None:
    """Check that somebody reads each SHAMMAH_ variable among `names`.

    Raises:
        InvalidInputError: nobody does; the message names the nearest known ones.
        PreconditionError: a part is not installed.
    """
    # Only settings are read in any case of letters.
    others = OF_COMMANDS | OF_MODELS
    given = [name for name in names if name not in others and not name.startswith(OF_BENCHES)]
    if not any(name.upper().startswith(PREFIX) for name in given):
        return
    settings = {name for part in PARTS for name in read_names(part)}
    unknown = find_unknown(given, PREFIX, settings)
    if unknown:
        heads = ", ".join(f"{PREFIX}{part.upper()}_" for part in PARTS)
        raise InvalidInputError(describe_unknown(unknown, sorted(settings | others), f"settings begin with {heads}"))


def read_names(part: str) -> set[str]:
    """Return the variables that a part reads its settings from.

    Raises:
        PreconditionError: the part is not installed.
    """
    fields = _read_fields(f"shammah_{part}.config", f"{part.capitalize()}Settings")
    return {f"{PREFIX}{part.upper()}_{field.upper()}" for field in fields}


def _read_fields(module: str, kind: str) -> set[str]:
    """Return the fields of a settings class, with those of the classes of Shammah that it is made of."""
    tree = ast.parse(_find_source(module).read_text("utf-8"))
    imported = {
        alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("shammah_")
        for alias in node.names
    }
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind)
    fields = {
        item.target.id for item in body.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    for base in body.bases:
        if isinstance(base, ast.Name) and (home := imported.get(base.id)):
            fields |= _read_fields(home, base.id)
    return fields


def _find_source(module: str) -> Path:
    package, *rest = module.split(".")
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise PreconditionError(f"{package} is not installed")
    return Path(found.submodule_search_locations[0], *rest).with_suffix(".py")
