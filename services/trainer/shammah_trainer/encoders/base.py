"""Release 0 of router and validator: the base encoder with heads that have learned nothing.

Such a router knows no category and such a validator gives every response its prior of one half, so release 0 forwards
everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shammah_chassis.encoder import EMBEDDER_NAME, TOKENIZER_NAME
from shammah_chassis.errors import ArtifactError

from shammah_trainer.encoders.bert import BertBody, BertShape, load_hugging_face
from shammah_trainer.encoders.export import GraphSpec, Sample, check_parity, export_graph
from shammah_trainer.encoders.networks import (
    CAPACITY,
    NEIGHBOURS,
    STATISTICS,
    Embedder,
    QualityHead,
    RouterNetwork,
    ValidatorNetwork,
)
from shammah_trainer.encoders.results import RoleResult, RouterHyper
from shammah_trainer.encoders.storage import StoredVersion, load_version, save_version

ROUTER_TOKENS = 256
VALIDATOR_TOKENS = 512
TUNED_LAYERS = 2
ROUTER_GRAPH = GraphSpec(("embedding", "local_probability", "category_probability", "nearness"))
VALIDATOR_GRAPH = GraphSpec(
    ("quality", "text_logits"),
    (("statistics", STATISTICS), ("has_statistics", 0), ("category", CAPACITY), ("neighbours", NEIGHBOURS)),
)
VALIDATOR_FORMAT = 2
"""Format of a validator's weights; 1 had neither nearest examples nor small networks in its heads and is still read."""
EMBEDDER_GRAPH = GraphSpec(("embedding",), name=EMBEDDER_NAME)
SAMPLE_PAIRS = (
    ("What is the capital of France?", "Paris"),
    ("Is this review positive or negative: a wonderful film.", "positive"),
    ("How many legs has a spider?", "A spider has 8 legs, an insect has 6."),
    ("hi", "Hello, how can I help you today?"),
)


def make_base_router(encoder_folder: Path, out: Path) -> RoleResult:
    """Make release 0 of the router from a Hugging Face BERT folder (with `tokenizer.json`).

    Raises:
        ArtifactError: the folder is no usable BERT, or the graph differs from the network.
    """
    body = load_hugging_face(encoder_folder)
    network = RouterNetwork(body).eval()
    hyper = RouterHyper()
    config = _config(body, "router", ROUTER_TOKENS)
    config |= {"category_floor": hyper.category_floor, "precision": hyper.precision}
    save_version(out, network.state_dict(), config=config, labels=(), tokenizer=_tokenizer(encoder_folder))
    export_graph(network, ROUTER_GRAPH, out)
    sample = Sample([query for query, _ in SAMPLE_PAIRS], config["max_tokens"], {})
    difference = check_parity(network, ROUTER_GRAPH, out, sample)
    return RoleResult(0.0, 0.0, config, (), {}, {"parity": difference})


def make_base_validator(encoder_folder: Path, out: Path, *, tuned_layers: int = TUNED_LAYERS) -> RoleResult:
    """Make release 0 of the validator; `tuned_layers` upper layers can be trained later, each is stored twice.

    Raises:
        ArtifactError: the folder is no usable BERT, or a graph differs from its network.
    """
    body = load_hugging_face(encoder_folder)
    tuned = min(tuned_layers, len(body.layers))
    network = ValidatorNetwork(body, tuned_layers=tuned).eval()
    config = _config(body, "validator", VALIDATOR_TOKENS) | {
        "tuned_layers": tuned,
        "format": VALIDATOR_FORMAT,
        "index_rows": 0,
    }
    save_version(out, network.state_dict(), config=config, labels=(), tokenizer=_tokenizer(encoder_folder))
    export_graph(network, VALIDATOR_GRAPH, out)
    export_graph(Embedder(body), EMBEDDER_GRAPH, out)
    limit = config["max_tokens"]
    difference = check_parity(network, VALIDATOR_GRAPH, out, sample_pairs(SAMPLE_PAIRS, max_tokens=limit))
    texts = Sample([response for _, response in SAMPLE_PAIRS], limit, {})
    difference = max(difference, check_parity(Embedder(body), EMBEDDER_GRAPH, out, texts))
    return RoleResult(0.0, 0.0, config, (), {}, {"parity": difference})


def load_router(folder: Path) -> tuple[RouterNetwork, StoredVersion]:
    """Load the network of a router version.

    Raises:
        ArtifactError: not a router version, or its weights don't fit its config.
    """
    stored = load_version(folder, kind="router")
    network = RouterNetwork(BertBody(BertShape.from_config(stored.config["encoder"])))
    _fill(network, stored)
    return network, stored


def load_validator(folder: Path) -> tuple[ValidatorNetwork, StoredVersion]:
    """Load the network of a validator version; one of format 1 is brought to the present format.

    Raises:
        ArtifactError: not a validator version, a newer format, or its weights don't fit its config.
    """
    stored = load_version(folder, kind="validator")
    known = int(stored.config.get("format", 1))
    if known > VALIDATOR_FORMAT:
        raise ArtifactError(f"{folder.name} has validator format {known}; this program reads up to {VALIDATOR_FORMAT}")
    if known == 1:
        stored = replace(
            stored,
            weights=widen_heads(stored.weights),
            config=stored.config | {"format": VALIDATOR_FORMAT, "index_rows": 0},
        )
    body = BertBody(BertShape.from_config(stored.config["encoder"]))
    network = ValidatorNetwork(body, tuned_layers=int(stored.config["tuned_layers"]))
    _fill(network, stored)
    return network, stored


def sample_pairs(pairs: tuple[tuple[str, str], ...], *, max_tokens: int) -> Sample:
    """Make a parity sample of pairs, every other one with made statistics and a category."""
    generator = np.random.default_rng(0)
    count = len(pairs)
    extra = {
        "statistics": generator.normal(scale=3.0, size=(count, STATISTICS)).astype(np.float32),
        "has_statistics": (np.arange(count) % 2).astype(np.float32),
        "category": np.eye(CAPACITY, dtype=np.float32)[np.arange(count) % 3],
        "neighbours": generator.random(size=(count, NEIGHBOURS)).astype(np.float32),
    }
    return Sample(list(pairs), max_tokens, extra)


def widen_heads(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights of format 1 as those of format 2: the same heads, blind to the nearest examples."""
    wider = dict(weights)
    for name, before in (("quality_text", 0), ("quality_full", STATISTICS)):
        for part, filled in (("mean", 0.0), ("scale", 1.0), ("weight", 0.0)):
            old = wider[f"{name}.{part}"]
            added = torch.full((NEIGHBOURS,), filled)
            wider[f"{name}.{part}"] = torch.cat([old[:before], added, old[before:]])
        fresh = QualityHead(len(wider[f"{name}.mean"]))
        for part in ("wide", "wide_bias", "narrow"):
            wider[f"{name}.{part}"] = getattr(fresh, part)
    return wider


def _config(body: BertBody, kind: str, max_tokens: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "encoder": body.shape.to_config(),
        "max_tokens": min(max_tokens, body.shape.max_position_embeddings),
        "capacity": CAPACITY,
    }


def _tokenizer(folder: Path) -> Path:
    path = folder / TOKENIZER_NAME
    if not path.is_file():
        raise ArtifactError(f"{folder} has no {TOKENIZER_NAME}")
    return path


def _fill(network: torch.nn.Module, stored: StoredVersion) -> None:
    try:
        network.load_state_dict(stored.weights)
    except RuntimeError as error:
        raise ArtifactError(f"the weights don't fit the config: {error}") from error
    network.eval()
