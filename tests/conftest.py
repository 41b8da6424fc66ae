"""What holds for every test."""

from __future__ import annotations

import os

# Tests start programs (nats-server) while gRPC's threads run: its own handlers around a fork can then block the child
# before it becomes the program. Nothing here goes on in Python after a fork, so they are not needed.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
