"""A plan of tiny stand-in services plus the real nats-server, and a program that runs it: for tests of the supervisor.

`python -m support.stand_ins DATA_DIR [SLOW_STOP]` is an `up` of that plan.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from shammah_chassis.errors import ShammahError
from shammah_local.commands import up
from shammah_local.layout import Layout
from shammah_local.plan import Launch, Part, PlanSettings, Ports, embedded_plan
from shammah_local.ports import read_ready_file
from shammah_local.tokens import ensure_tokens

# A service in small: takes the port it is told, answers /readyz, notes when it stops.
SERVICE = """
import http.server, json, os, signal, sys, threading, time
name, folder, port, stubborn = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "stubborn"

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass

class Server(http.server.HTTPServer):
    allow_reuse_address = True

server = Server(("127.0.0.1", port), Ready)
def stop(*_):
    if stubborn:
        return
    with open(folder + "/stops", "a") as stops:
        stops.write(name + "\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
port = server.server_address[1]
more = {"http_port": port} if name == "gateway" else {}
text = json.dumps({"port": port, "admin_port": port, **more, "pid": os.getpid()})
path = f"{folder}/{name}.ready.json"
open(path + ".new", "w").write(text)
os.replace(path + ".new", path)
server.serve_forever()
"""


def stand_in(layout: Layout, name: str, *, stage: int, stop_rank: int, stubborn: bool = False) -> Part:
    """A stand-in for a service."""
    ready_file = layout.ready_file(name)

    def launch(ports: Ports) -> Launch:
        ready_file.unlink(missing_ok=True)
        port = str(ports.get(name, {}).get("port", 0))
        kind = "stubborn" if stubborn else "kind"
        return Launch([sys.executable, "-c", SERVICE, name, str(layout.run), port, kind])

    def read(pid: int) -> Mapping[str, int] | None:
        return read_ready_file(ready_file, pid)

    return Part(name=name, stage=stage, stop_rank=stop_rank, launch=launch, read_ports=read, stop_seconds=2.0)


def make_plan(layout: Layout, *, stubborn: bool = False) -> list[Part]:
    """Real NATS, two workers, a gateway."""
    token = ensure_tokens(layout)
    nats = embedded_plan(PlanSettings(layout=layout, nats_token=token))[0]
    return [
        nats,
        stand_in(layout, "trainer", stage=1, stop_rank=2),
        stand_in(layout, "router", stage=1, stop_rank=1, stubborn=stubborn),
        stand_in(layout, "gateway", stage=2, stop_rank=0),
    ]


def main() -> int:
    """Run the plan until a signal."""
    layout = Layout(Path(sys.argv[1]))
    try:
        return up(layout, lambda own: make_plan(own, stubborn="stubborn" in sys.argv), start_seconds=60.0)
    except ShammahError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
