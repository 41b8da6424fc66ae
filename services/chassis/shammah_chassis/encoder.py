"""Texts through an exported encoder: tokenizer, length-sorted batches, ONNX Runtime.

Shared by router, validator, the similarity grader and the trainer (which takes the tokenising and the batches). It
knows no role: which further inputs a graph has and what its outputs mean is the caller's affair.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from tokenizers import Tokenizer

from shammah_chassis.errors import ArtifactError, InvalidInputError

GRAPH_NAME = "graph.onnx"
EMBEDDER_NAME = "embedder.onnx"
WEIGHTS_NAME = "model.safetensors"
TOKENIZER_NAME = "tokenizer.json"
TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_MAX_ROWS = 64
_MAX_PADDED_TOKENS = 8192
# Everything that ONNX Runtime raises; they share no base class of their own.
_ORT_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)

Precision = Literal["fp32", "int8"]
"""How an encoder multiplies by its weights. The figures of the two differ, so thresholds belong to one of them."""
Text = str | tuple[str, str]
"""One text, or a pair such as (query, response)."""
Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TokenRow:
    """Token ids and segment (0 or 1) of each token of one text; `truncated` when tokens were cut off its end."""

    ids: tuple[int, ...]
    types: tuple[int, ...]
    truncated: bool


class TextTokenizer:
    """A `tokenizer.json` with our own limit and no padding; the file's own settings of both are ignored."""

    def __init__(self, path: Path, *, max_tokens: int) -> None:
        """Load the file.

        Raises:
            ArtifactError: the file can't be read as a tokenizer.
        """
        if not path.is_file():
            raise ArtifactError(f"{path.parent.name}: no {path.name}")
        try:
            self._tokenizer = Tokenizer.from_str(path.read_text("utf-8"))
        except Exception as error:  # tokenizers raises bare Exception, there is nothing narrower to name
            raise ArtifactError(f"{path}: not a tokenizer: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens, strategy="longest_first")
        self.max_tokens = max_tokens

    def encode(self, texts: Sequence[Text]) -> list[TokenRow]:
        """Tokenise texts or pairs; what is beyond `max_tokens` is cut off the end of the longer part."""
        if len(texts) == 1:
            # A batch goes through a pool of threads; one text is done before they wake.
            text = texts[0]
            encodings = [self._tokenizer.encode(text) if isinstance(text, str) else self._tokenizer.encode(*text)]
        else:
            encodings = self._tokenizer.encode_batch(list(texts))
        return [TokenRow(tuple(e.ids), tuple(e.type_ids), bool(e.overflowing)) for e in encodings]


def plan_batches(
    lengths: Sequence[int], *, max_rows: int = _MAX_ROWS, max_padded_tokens: int = _MAX_PADDED_TOKENS
) -> Iterator[list[int]]:
    """Yield batches of row numbers, short rows first, so that little is padded.

    A batch has at most `max_rows` rows and rows times its longest at most `max_padded_tokens`; a single row that is
    longer than that is a batch of its own.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda number: lengths[number]):
        if batch and (len(batch) >= max_rows or (len(batch) + 1) * lengths[row] > max_padded_tokens):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def pad_rows(rows: Sequence[TokenRow]) -> dict[str, npt.NDArray[np.int64]]:
    """Pad rows to their longest: the three `TEXT_INPUTS`, int64 `[B, S]` each."""
    longest = max(len(row.ids) for row in rows)
    ids, mask, types = (np.zeros((len(rows), longest), dtype=np.int64) for _ in TEXT_INPUTS)
    for number, row in enumerate(rows):
        length = len(row.ids)
        ids[number, :length] = row.ids
        mask[number, :length] = 1
        types[number, :length] = row.types
    return dict(zip(TEXT_INPUTS, (ids, mask, types), strict=True))


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a graph made of some texts: each output `[n, ...]` in their order, and which of them were cut."""

    outputs: dict[str, Array]
    truncated: tuple[bool, ...]


class EncoderSession:
    """One loaded graph with its tokenizer. Safe to use from several threads."""

    def __init__(
        self,
        folder: Path,
        *,
        threads: int,
        max_tokens: int,
        graph: str = GRAPH_NAME,
        precision: Precision = "fp32",
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        """Load `graph` and `tokenizer.json` of a version folder; weights may lie beside the graph.

        With precision "int8" the weights are quantised here (see `encoder_int8`), in about 50 ms for MiniLM-L6.

        Raises:
            ArtifactError: a file is missing or ONNX Runtime refuses the graph.
        """
        self._tokenizer = TextTokenizer(folder / TOKENIZER_NAME, max_tokens=max_tokens)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # Spinning workers would take the cores from the generator next door.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model: str | bytes = str(folder / graph)
        saved_bytes = 0
        if precision == "int8":
            # Imported here: only who quantises needs the onnx package in memory.
            from shammah_chassis.encoder_int8 import quantise_graph

            quantised = quantise_graph(folder / graph)
            model, saved_bytes = quantised.model, quantised.saved_bytes
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=list(providers))
        except _ORT_ERRORS as error:
            raise ArtifactError(f"{folder.name}/{graph} can't be loaded: {error}") from error
        self._inputs = {entry.name for entry in self._session.get_inputs()}
        self._outputs = [entry.name for entry in self._session.get_outputs()]
        self.resident_bytes = sum(
            (folder / name).stat().st_size for name in (graph, WEIGHTS_NAME) if _exists(folder, name)
        )
        self.resident_bytes -= saved_bytes

    def run(self, texts: Sequence[Text], extra: Mapping[str, Array] | None = None) -> Encoded:
        """Run all texts; `extra` inputs have one row a text.

        Raises:
            InvalidInputError: no text, or an extra input with another number of rows.
            ArtifactError: the graph refuses inputs that it was made for.
        """
        extra = extra or {}
        if not texts:
            raise InvalidInputError("no text to encode; allowed is 1 or more")
        for name, array in extra.items():
            if len(array) != len(texts):
                raise InvalidInputError(f"{name} has {len(array)} rows for {len(texts)} texts")
        rows = self._tokenizer.encode(texts)
        if len(rows) == 1:
            # What a pod serves: nothing to sort, nothing to put together.
            return Encoded(self._run_batch({**pad_rows(rows), **extra}), (rows[0].truncated,))
        gathered: dict[str, Array] = {}
        for batch in plan_batches([len(row.ids) for row in rows]):
            feed: dict[str, Array] = {**pad_rows([rows[number] for number in batch])}
            feed |= {name: array[batch] for name, array in extra.items()}
            for name, values in self._run_batch(feed).items():
                target = gathered.setdefault(name, np.zeros((len(texts), *values.shape[1:]), dtype=values.dtype))
                target[batch] = values
        return Encoded(gathered, tuple(row.truncated for row in rows))

    def embed(self, texts: Sequence[str]) -> Floats:
        """Return the graph's `embedding` output: unit vectors, float32 `[n, d]`; `[0, 0]` for no text.

        Raises:
            ArtifactError: the graph has no such output.
        """
        if "embedding" not in self._outputs:
            raise ArtifactError(f"the graph has no output embedding; it has {', '.join(self._outputs)}")
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        return self.run(texts).outputs["embedding"].astype(np.float32)

    def close(self) -> None:
        """Let the session go; later calls fail."""
        with contextlib.suppress(AttributeError):
            del self._session

    def _run_batch(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        wanted = {name: array for name, array in feed.items() if name in self._inputs}
        try:
            values = self._session.run(self._outputs, wanted)
        except _ORT_ERRORS as error:
            raise ArtifactError(f"the graph refused its inputs: {error}") from error
        return dict(zip(self._outputs, values, strict=True))


def precision_of(config: Mapping[str, object]) -> Precision:
    """Return the precision that a version was calibrated for and must be served in: "precision" of its config.

    A version that doesn't say was made before there was a choice: "fp32".

    Raises:
        ArtifactError: a precision that this program doesn't know.
    """
    named = config.get("precision", "fp32")
    for known in get_args(Precision):
        if named == known:
            return known  # type: ignore[no-any-return]
    raise ArtifactError(f"the version is for precision {named!r}; allowed: {', '.join(get_args(Precision))}")


def _exists(folder: Path, name: str) -> bool:
    return (folder / name).is_file()
