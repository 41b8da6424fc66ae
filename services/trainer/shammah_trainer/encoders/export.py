"""From a torch network to a graph that ONNX Runtime serves, and the proof that both say the same.

A graph is traced once, for release 0. A later version takes its parent's graph and points it at new weights; only if
that fails its parity check is the network traced again. It knows no training.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from shammah_chassis.encoder import GRAPH_NAME, EncoderSession, Text, TextTokenizer, pad_rows
from shammah_chassis.errors import ArtifactError
from torch import Tensor, nn

from shammah_trainer.encoders.storage import point_at_weights

MAX_DIFFERENCE = 1e-3
"""Largest difference of an output between graph and network that passes; measured ones are near 1e-6."""
PARITY_ROWS = 16
_TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
_RESULT = "result."
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """File name, names of the extra inputs with their widths (0 for one value a row), and names of the outputs."""

    outputs: tuple[str, ...]
    extra: tuple[tuple[str, int], ...] = ()
    name: str = GRAPH_NAME


def export_graph(network: nn.Module, spec: GraphSpec, folder: Path) -> None:
    """Trace `network` with free batch and length and write `<folder>/<spec.name>`; weights must be saved there first.

    Raises:
        ArtifactError: a weight was folded into the graph.
    """
    # One tensor each: the tracer takes one tensor given three times for one input.
    tokens = [torch.ones(2, 7, dtype=torch.int64) for _ in _TEXT_INPUTS]
    extra = [torch.zeros(2, width) if width else torch.zeros(2) for _, width in spec.extra]
    free = torch.export.Dim.DYNAMIC
    shapes = [*({0: free, 1: free} for _ in _TEXT_INPUTS), *({0: free} for _ in spec.extra)]
    with _quiet():
        program = torch.onnx.export(
            network.eval(),
            (*tokens, *extra),
            dynamo=True,
            # The optimizer would transpose weights into constants without a name; ONNX Runtime does that at load.
            optimize=False,
            verbose=False,
            input_names=[*_TEXT_INPUTS, *(name for name, _ in spec.extra)],
            output_names=[_RESULT + name for name in spec.outputs],
            dynamic_shapes=tuple(shapes),
        )
    model = program.model_proto
    _name_values(model, spec.outputs)
    _write(model, folder, spec.name)


def reuse_graph(parent: Path, folder: Path, *, name: str = GRAPH_NAME) -> None:
    """Copy the parent's graph into `folder` and point it at the weights saved there.

    Raises:
        ArtifactError: the parent's graph can't be read or doesn't fit the weights.
    """
    try:
        model = onnx.load(str(parent / name), load_external_data=False)
    except (OSError, ValueError, onnx.onnx_cpp2py_export.checker.ValidationError) as error:
        raise ArtifactError(f"{parent / name} can't be read: {error}") from error
    _write(model, folder, name)


def finish_graph(network: nn.Module, spec: GraphSpec, *, parent: Path, folder: Path, sample: Sample) -> float:
    """Give `folder` its graph: the parent's with new weights, else a new trace. Returns the largest difference.

    Raises:
        ArtifactError: the traced graph differs from the network too.
    """
    try:
        reuse_graph(parent, folder, name=spec.name)
        return check_parity(network, spec, folder, sample)
    except ArtifactError as error:
        _log.warning("the parent's graph can't be reused, tracing a new one: %s", error.message)
    export_graph(network, spec, folder)
    return check_parity(network, spec, folder, sample)


@dataclass(frozen=True, slots=True)
class Sample:
    """Real rows for a parity check: texts or pairs, their extra inputs, and the token limit of the version."""

    texts: Sequence[Text]
    max_tokens: int
    extra: Mapping[str, npt.NDArray[np.float32]]


def check_parity(network: nn.Module, spec: GraphSpec, folder: Path, sample: Sample) -> float:
    """Compare graph and network on the sample; returns the largest absolute difference of any output.

    Raises:
        ArtifactError: the difference is above `MAX_DIFFERENCE`, or not a number.
    """
    threads = torch.get_num_threads()
    session = EncoderSession(folder, threads=threads, max_tokens=sample.max_tokens, graph=spec.name)
    try:
        served = session.run(sample.texts, sample.extra).outputs
    finally:
        session.close()
    expected = run_network(network, spec, folder / "tokenizer.json", sample)
    largest = 0.0
    for name, values in expected.items():
        difference = float(np.abs(served[name].astype(np.float32) - values).max())
        if not difference <= MAX_DIFFERENCE:
            raise ArtifactError(f"{spec.name}: output {name} differs by {difference:.2g} from the network")
        largest = max(largest, difference)
    return largest


def run_network(
    network: nn.Module, spec: GraphSpec, tokenizer: Path, sample: Sample
) -> dict[str, npt.NDArray[np.float32]]:
    """Run the torch network on the sample as the graph would be run; outputs by name."""
    rows = TextTokenizer(tokenizer, max_tokens=sample.max_tokens).encode(sample.texts)
    padded = pad_rows(rows)
    inputs = [torch.from_numpy(padded[name]) for name in _TEXT_INPUTS]
    inputs += [torch.from_numpy(np.asarray(sample.extra[name])) for name, _ in spec.extra]
    with torch.no_grad():
        outputs = network(*inputs)
    values: tuple[Tensor, ...] = outputs if isinstance(outputs, tuple) else (outputs,)
    return {name: value.numpy() for name, value in zip(spec.outputs, values, strict=True)}


def _write(model: onnx.ModelProto, folder: Path, name: str) -> None:
    point_at_weights(model, folder)
    (folder / name).write_bytes(model.SerializeToString())


def _name_values(model: onnx.ModelProto, outputs: Sequence[str]) -> None:
    """Take the prefix off the outputs; the tracer's own values of those names (such as `embedding`) make way."""
    names = {name: f"inner.{name}" for name in outputs} | {_RESULT + name: name for name in outputs}
    for node in model.graph.node:
        for values in (node.input, node.output):
            for number, name in enumerate(values):
                values[number] = names.get(name, name)
        # Stack traces of the tracing machine: half of the file, and no business of who serves it.
        node.ClearField("metadata_props")
    for entry in (*model.graph.output, *model.graph.value_info):
        entry.name = names.get(entry.name, entry.name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes about missing torchvision and its own deprecations out of our logs."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
