"""gRPC shell of the validator: messages to plain values and back. What is good, the engine knows."""

from __future__ import annotations

from grpc import aio
from shammah.v1 import types_pb2, validator_pb2, validator_pb2_grpc
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.executor import BoundedExecutor
from shammah_chassis.held import HeldVersions, Loader
from shammah_chassis.pod import Pod
from shammah_chassis.serving import ServiceParts

from shammah_validator.comparison import Comparison, compare_responses
from shammah_validator.config import ValidatorSettings
from shammah_validator.engine import ValidateItem, Validation, ValidatorEngine

SERVICE_NAME = "shammah.v1.ValidatorService"
ValidateContext = aio.ServicerContext[validator_pb2.ValidateRequest, validator_pb2.ValidateResponse]
CompareContext = aio.ServicerContext[validator_pb2.CompareRequest, validator_pb2.CompareResponse]


class ValidatorServicer(validator_pb2_grpc.ValidatorServiceServicer):
    """Serves the validator role."""

    def __init__(self, held: HeldVersions[ValidatorEngine], inference: BoundedExecutor) -> None:
        self._held = held
        self._inference = inference

    async def Validate(
        self, request: validator_pb2.ValidateRequest, context: ValidateContext
    ) -> validator_pb2.ValidateResponse:
        """Judge one response with the release that the request names."""
        _require_query(request.query)
        statistics = _read_statistics(request.statistics) if request.HasField("statistics") else None
        item = ValidateItem(request.query, request.response, request.category, statistics)
        with self._held.lease(request.release) as leased:
            (result,) = await self._inference.run(leased.value.validate, [item])
        return validator_pb2.ValidateResponse(
            quality=result.quality,
            uncertainty=result.uncertainty,
            scores=_write_scores(result),
            truncated=result.truncated,
            release=leased.release,
            version=leased.version,
        )

    async def Compare(
        self, request: validator_pb2.CompareRequest, context: CompareContext
    ) -> validator_pb2.CompareResponse:
        """Compare two responses to one query."""
        _require_query(request.query)
        first = _read_statistics(request.statistics_a) if request.HasField("statistics_a") else None
        second = _read_statistics(request.statistics_b) if request.HasField("statistics_b") else None
        items = (
            ValidateItem(request.query, request.response_a, request.category, first),
            ValidateItem(request.query, request.response_b, request.category, second),
        )
        with self._held.lease(request.release) as leased:
            result: Comparison = await self._inference.run(compare_responses, leased.value, *items)
        return validator_pb2.CompareResponse(
            quality_a=result.quality_a,
            quality_b=result.quality_b,
            cosine=result.cosine,
            same_facts=result.same_facts,
            similarity=result.similarity,
            release=leased.release,
            version=leased.version,
        )


async def build(settings: ValidatorSettings) -> ServiceParts:
    """Put the validator's pod together."""
    pod = Pod(settings, role="validator", loader=make_loader(settings))
    add = validator_pb2_grpc.add_ValidatorServiceServicer_to_server
    return await pod.build(lambda made: (add, ValidatorServicer(made.held, made.inference), SERVICE_NAME))


def make_loader(settings: ValidatorSettings) -> Loader[ValidatorEngine]:
    """Say how a validator version is loaded; the engine tests itself by a probe pair."""
    return Loader(
        load=lambda folder, manifest, _: ValidatorEngine(folder, manifest, settings.session_threads),
        close=ValidatorEngine.close,
        measure=lambda engine: engine.resident_bytes,
    )


def _require_query(query: str) -> None:
    if not query.strip():
        raise InvalidInputError("query is empty; it needs at least one character that is no space")


def _read_statistics(statistics: types_pb2.GenerationStatistics) -> list[float]:
    """Return the values in the order of the proto's fields, which is the order that the engine wants."""
    return [float(getattr(statistics, field.name)) for field in statistics.DESCRIPTOR.fields]


def _write_scores(result: Validation) -> validator_pb2.TextScores:
    return validator_pb2.TextScores(
        on_topic=result.on_topic,
        coherence=result.coherence,
        hallucination=result.hallucination,
        hallucination_risk=_risk_level(result.hallucination),
    )


def _risk_level(probability: float) -> validator_pb2.RiskLevel.ValueType:
    """Return a probability in words; the limits are those of the proto."""
    if probability < 1 / 3:
        return validator_pb2.RISK_LEVEL_LOW
    return validator_pb2.RISK_LEVEL_MEDIUM if probability < 2 / 3 else validator_pb2.RISK_LEVEL_HIGH
