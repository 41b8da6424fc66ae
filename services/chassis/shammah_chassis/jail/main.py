"""Run one program: read it, cut this process off, run it to its end, and say so on the report pipe.

Standard input carries one JSON object: `sources` (the first that compiles is run), `token`, `report` (a file
descriptor) and `limits`. The report is one JSON line (what was isolated, or `refused`), then the token if the
program ran to its end: a program that exits early cannot have passed. The program shares this interpreter, so
one that searches the frames of its callers can find the token, as it can redefine its own tests' `==`: this
guards against mistakes of a student, not against an attack on its own grade.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import types

from shammah_chassis.jail.isolate import isolate


def main() -> None:
    """Do what the module says; never returns."""
    order = json.loads(sys.stdin.buffer.read())
    report: int = order["report"]
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    # What was only needed to get here is no business of the program.
    sys.path.pop()
    os.environ.clear()
    try:
        done: dict[str, str] = isolate(order["limits"])
    except OSError as error:
        os.write(report, json.dumps({"refused": str(error)}).encode() + b"\n")
        os._exit(3)
    os.write(report, json.dumps(done).encode() + b"\n")
    if _run(order["sources"]):
        os.write(report, order["token"].encode())
        os._exit(0)
    os._exit(1)


def _run(sources: list[str]) -> bool:
    """Run the first of `sources` that compiles as `__main__`; True when it came to its end."""
    sys.argv = ["program.py"]
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    try:
        exec(_compile(sources), module.__dict__)
    except SystemExit as error:
        print(f"SystemExit: the program left before its end with {error.code!r}", file=sys.stderr)
    except BaseException:  # whatever the program raises is its result
        traceback.print_exc()
    else:
        sys.stdout.flush()
        return True
    sys.stderr.flush()
    return False


def _compile(sources: list[str]) -> types.CodeType:
    first: Exception | None = None
    for source in sources:
        try:
            return compile(source, "program.py", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            first = first or error
    raise first or ValueError("no program")
