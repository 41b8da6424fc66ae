"""What the CUDA operators compute, in numpy and float32: the references of their tests."""

from __future__ import annotations

import numpy as np

EPSILON = 1e-5


def normalise(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Return the RMS normalisation of x times the gain."""
    x = x.astype(np.float32)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON) * gain.astype(np.float32)


def multiply(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return x times the transposed weight."""
    made: np.ndarray = x.astype(np.float32) @ weight.T.astype(np.float32)
    return made


def gate(both: np.ndarray) -> np.ndarray:
    """Return silu(gate) * up of gates and ups side by side."""
    gates, ups = np.split(both, 2, -1)
    made: np.ndarray = gates / (1 + np.exp(-gates)) * ups
    return made


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Return heads `[.., head_dim]` with the rotary embedding of one position."""
    first, second = np.split(x, 2, -1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def attend(
    qkv: np.ndarray, lengths: np.ndarray, cos: np.ndarray, sin: np.ndarray, keys: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what is mixed, and the buffers with the new keys and values."""
    batch, tokens, width = qkv.shape
    _, kv_heads, _, size = keys.shape
    heads = width // size - 2 * kv_heads
    keys, values = keys.astype(np.float32), values.astype(np.float32)
    cos, sin = cos.astype(np.float32), sin.astype(np.float32)
    packed = qkv.astype(np.float32).reshape(batch, tokens, heads + 2 * kv_heads, size)
    mixed = np.zeros((batch, tokens, heads, size), np.float32)
    for row in range(batch):
        for token in range(tokens):
            at = int(lengths[row]) + 1 - tokens + token
            own = packed[row, token]
            keys[row, :, at] = rotate(own[heads : heads + kv_heads], cos[at], sin[at]).astype(np.float16)
            values[row, :, at] = own[heads + kv_heads :]
            for head in range(heads):
                seen = keys[row, head // (heads // kv_heads), : at + 1]
                scores = seen @ rotate(own[head], cos[at], sin[at]) / np.sqrt(size)
                shares = np.exp(scores - scores.max())
                mixed[row, token, head] = shares / shares.sum() @ values[row, head // (heads // kv_heads), : at + 1]
    return mixed.reshape(batch, tokens, -1), keys, values


def read(logits: np.ndarray) -> np.ndarray:
    """Return token, log-probability, entropy and margin of each row."""
    logits = logits.astype(np.float64)
    top = logits.max(1, keepdims=True)
    logprobs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    ordered = np.sort(logits, 1)
    entropies = -(np.exp(logprobs) * logprobs).sum(1)
    return np.stack([logits.argmax(1), logprobs.max(1), entropies, ordered[:, -1] - ordered[:, -2]], 1)
