"""The serving pods of each role: which are there, and which releases each of them holds.

One task a pod follows `ModelService.WatchVersions` and reconnects for ever. It does not decide anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence

import grpc
from shammah.v1 import generator_pb2_grpc, models_pb2, models_pb2_grpc, router_pb2_grpc, validator_pb2_grpc
from shammah_chassis.channels import channel
from shammah_chassis.manifest import ROLES
from shammah_chassis.status import to_error
from shammah_chassis.tasks import stop_tasks

from shammah_gateway.changes import Changes

RECONNECT_SECONDS = 0.25
# How long a pod is still tried after its watch broke.
TRUST_SECONDS = 5.0
_log = logging.getLogger(__name__)


class Pod:
    """One target of one role; `held` is what it last said, which may be old unless it is `connected`."""

    def __init__(self, role: str, target: str, token: str | None) -> None:
        self.role = role
        self.target = target
        self.channel = channel(target, token)
        # Made once: making one looks up and wraps every method of its service, on each query's way.
        self.router = router_pb2_grpc.RouterServiceStub(self.channel)
        self.generator = generator_pb2_grpc.GeneratorServiceStub(self.channel)
        self.validator = validator_pb2_grpc.ValidatorServiceStub(self.channel)
        self.held: dict[str, models_pb2.HeldVersion] = {}
        self.connected = False
        self.lost_at = 0.0
        self.detail = "not reached yet"

    def holds(self, release: str) -> bool:
        """Say whether the pod holds the release, ready to serve."""
        entry = self.held.get(release)
        return entry is not None and entry.state == models_pb2.HOLD_STATE_READY

    def failure(self, release: str) -> str:
        """Return why the pod could not load the release; "" when it did not fail."""
        entry = self.held.get(release)
        if entry is None or entry.state != models_pb2.HOLD_STATE_FAILED:
            return ""
        return f"{self.role} {self.target}: {entry.error_code}: {entry.error_message}"


class Pods:
    """All pods of the three roles; `changed` rings at each news."""

    def __init__(self, targets: Mapping[str, Sequence[str]], *, token: str | None) -> None:
        self.changed = Changes()
        self._pods: dict[str, list[Pod]] = {
            role: [Pod(role, target, token) for target in targets.get(role, ())] for role in ROLES
        }
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to follow every pod."""
        self._tasks = [asyncio.create_task(self._follow(pod)) for pods in self._pods.values() for pod in pods]

    async def close(self) -> None:
        """Stop following, close the channels."""
        await stop_tasks(self._tasks)
        for pods in self._pods.values():
            for pod in pods:
                await pod.channel.close()

    def of_role(self, role: str) -> Sequence[Pod]:
        """Return all pods of a role."""
        return self._pods[role]

    def holding(self, role: str, release: str) -> list[Pod]:
        """Return the pods of a role that hold a release; those that were just lost only when there is no other.

        A watch can break without the pod being away: a call that fails costs less than a query forwarded for nothing.
        """
        found = [pod for pod in self._pods[role] if pod.holds(release)]
        reached = [pod for pod in found if pod.connected]
        since = time.monotonic() - TRUST_SECONDS
        return reached or [pod for pod in found if pod.lost_at >= since]

    def held_by_all(self, release: str) -> bool:
        """Say whether every pod that can be reached holds the release, and each role has one that can."""
        for pods in self._pods.values():
            reached = [pod for pod in pods if pod.connected]
            if not reached or not all(pod.holds(release) for pod in reached):
                return False
        return True

    def failures(self, release: str) -> list[str]:
        """Why pods could not load a release; empty when none failed."""
        texts = (pod.failure(release) for pods in self._pods.values() for pod in pods)
        return [text for text in texts if text]

    async def _follow(self, pod: Pod) -> None:
        stub = models_pb2_grpc.ModelServiceStub(pod.channel)
        while True:
            try:
                async for news in stub.WatchVersions(models_pb2.WatchVersionsRequest()):
                    self._take(pod, news)
                self._lose(pod, "the pod ended the watch")
            except grpc.aio.AioRpcError as failure:
                self._lose(pod, to_error(failure).message)
            await asyncio.sleep(RECONNECT_SECONDS)

    def _take(self, pod: Pod, news: models_pb2.WatchVersionsResponse) -> None:
        if news.role != pod.role:
            pod.held = {}
            self._lose(pod, f"it serves the role {news.role!r}, not {pod.role!r}")
            return
        pod.held = {entry.release: entry for entry in news.versions}
        pod.connected = True
        pod.detail = f"holds {sum(pod.holds(name) for name in pod.held)} releases"
        self.changed.notify()

    def _lose(self, pod: Pod, why: str) -> None:
        if pod.connected:
            _log.warning("%s %s is away: %s", pod.role, pod.target, why)
            pod.lost_at = time.monotonic()
        pod.connected, pod.detail = False, why
        with contextlib.suppress(RuntimeError):
            self.changed.notify()
