"""How a generator version is loaded into a pod, tried out, and closed again.

It knows neither transport nor which releases are wanted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from shammah_chassis.errors import ArtifactError
from shammah_chassis.examples import Message
from shammah_chassis.held import Loader
from shammah_chassis.manifest import Manifest
from shammah_chassis.releases import Release

from shammah_generator.config import GeneratorSettings
from shammah_generator.engine import Engine
from shammah_generator.models import load_model
from shammah_generator.requests import Completion, Request
from shammah_generator.sampling import Sampling
from shammah_generator.stepping import Model

_CLOSE_SECONDS = 2.0
# Two prompts of different length: warms prompt, single and joint decoding.
_PROBES = ("Hi", "What is the capital of France? Answer in one word.")
_PROBE_TOKENS = 4


@dataclass(frozen=True, slots=True)
class HeldGenerator:
    """A loaded version: the model and the engine that alone may use it."""

    model: Model
    engine: Engine


class GeneratorVersions:
    """Loads and closes versions, and keeps the count of tokens of those that are gone."""

    def __init__(self, settings: GeneratorSettings) -> None:
        self._settings = settings
        self.retired_tokens = 0

    def make_loader(self) -> Loader[HeldGenerator]:
        """Return the functions that `HeldVersions` wants."""
        return Loader(
            load=self._load, close=self._close, measure=lambda held: held.model.resident_bytes, admit=self._admit
        )

    def _admit(self, release: Release) -> None:
        """Refuse a release whose promise was proved with another precision than is served here."""
        if release.precision != self._settings.precision:
            raise ArtifactError(
                f"release {release.id} is certified for precision {release.precision}, "
                f"this pod serves {self._settings.precision}"
            )

    def _load(self, folder: Path, _manifest: Manifest, _release: Release) -> HeldGenerator:
        settings = self._settings
        model = load_model(
            folder,
            precision=settings.precision,
            threads=settings.threads,
            slots=settings.slots,
            context=settings.context,
            cache_dir=settings.cache_dir,
        )
        engine = Engine(
            model,
            queue_limit=settings.queue_limit,
            chunk_tokens=settings.chunk_tokens,
            prefill_tokens=settings.prefill_tokens,
            prefix_bytes=settings.prefix_bytes,
            # So that a single call finds a slot while a batch runs.
            reserved_slots=settings.slots // 8,
        )
        held = HeldGenerator(model, engine)
        probe = Sampling(max_tokens=_PROBE_TOKENS)
        requests = [Request(messages=(Message("user", text),), sampling=probe) for text in _PROBES]
        fault = next((fault for done in engine.generate_batch(requests) if (fault := find_fault(done))), "")
        if fault:
            self._close(held)
            raise ArtifactError(f"version {folder.name} fails its self-test: {fault}")
        return held

    def _close(self, held: HeldGenerator) -> None:
        held.engine.close(_CLOSE_SECONDS)
        self.retired_tokens += held.engine.tokens_generated
        held.model.close()


def find_fault(completion: Completion) -> str:
    """Return what is wrong with the answer to a probe; "" when it is sound: it ended well and all scores are finite."""
    if completion.error is not None:
        return completion.error.message
    if completion.reason not in ("stop", "length"):
        return f"a probe ended by {completion.reason}"
    if not all(map(math.isfinite, (*completion.logprobs, *completion.statistics.as_features()))):
        return "a score is not a finite number"
    return ""
