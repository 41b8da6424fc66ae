"""Rotates the residual stream of a Llama-family decoder: the same function, with activations that quantise well.

RMS normalisation without gain commutes with an orthogonal matrix Q, so once every gain is folded into the product that
reads it, Q can be multiplied into all weights that read or write the stream (Ashkboos et al. 2024, "QuaRot"). Outliers
that sat in a few channels are spread over all of them. The values of each attention head are rotated alike, between
the product that makes them and the one that mixes them. What the activation function makes can't be rotated. It knows
weights, not how they are quantised.
"""

from __future__ import annotations

import numpy as np

from shammah_generator.arrays import Floats

_SEED = 20261122


class Rotation:
    """One fixed rotation of a stream of `hidden` channels and of heads of `head_dim`.

    Weights are `[outputs, inputs]`; `gain` is that of the normalisation before the product, `[inputs]`.
    """

    def __init__(self, hidden: int, head_dim: int) -> None:
        random = np.random.default_rng(_SEED)
        self._stream = _make_orthogonal(hidden, random)
        self._head = _make_orthogonal(head_dim, random)

    def rotate_table(self, table: Floats) -> Floats:
        """Return an embedding table `[vocab, hidden]` that writes the rotated stream."""
        return np.asarray(table @ self._stream, np.float32)

    def rotate_reader(self, weight: Floats, gain: Floats) -> Floats:
        """Return the weight of a product that reads the normalised stream."""
        return np.asarray((weight * gain) @ self._stream, np.float32)

    def rotate_writer(self, weight: Floats) -> Floats:
        """Return the weight of a product whose outputs are added to the stream."""
        return np.asarray(self._stream.T @ weight, np.float32)

    def rotate_values(self, weight: Floats) -> Floats:
        """Return the rows of a product that makes the values of attention heads, each head rotated."""
        size = len(self._head)
        return np.asarray(np.matmul(self._head.T, weight.reshape(-1, size, weight.shape[1])), np.float32).reshape(
            weight.shape
        )

    def rotate_mixer(self, weight: Floats) -> Floats:
        """Return the weight of the product that reads the mixed, rotated values of all heads."""
        size = len(self._head)
        return np.asarray(weight.reshape(-1, size) @ self._head, np.float32).reshape(weight.shape)


def _make_orthogonal(size: int, random: np.random.Generator) -> Floats:
    """Return a random orthogonal matrix `[size, size]`: the Q of a Gaussian matrix."""
    made, _ = np.linalg.qr(random.standard_normal((size, size)))
    return made.astype(np.float32)
