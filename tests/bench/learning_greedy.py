"""Greedy or sampled responses of a PyTorch student for studies: many prompts at once, one CUDA graph a step.

Only for comparing trainings with each other within a study: what serves, and what is certified, is answered by the
generator service's own engine. Shapes: B rows, S places of the cache; prompts are padded on the left, so that all rows
write the same place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from shammah_trainer.flat_llama import read_weights
from torch import Tensor
from torch.nn.functional import embedding, linear, rms_norm, scaled_dot_product_attention, silu

ROWS = 512
PLACES = 448
_REACHES = (96, 160, 256)
"""Places that a step looks at, where prompts and limits of a group allow: short groups are most of them."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The ids of a response without its end, the sum of their log-probabilities (its end's too), whether it ended."""

    ids: tuple[int, ...]
    confidence: float
    whole: bool


class Greedy:
    """Copies the weights of a model by `load` and answers prompts; the same graph serves all weights."""

    def __init__(self, model: Any, *, end: int, rows: int = ROWS, places: int = PLACES) -> None:
        config = model.config
        self._device = model.model.embed_tokens.weight.device
        self._cuda = self._device.type == "cuda"
        self._dtype = torch.bfloat16 if self._cuda else torch.float32
        self._heads, self._kv = int(config.num_attention_heads), int(config.num_key_value_heads)
        self._size = int(config.head_dim)
        self._eps, self._end = float(config.rms_norm_eps), end
        self._rows, self._places = rows, places
        make = {"device": self._device, "dtype": self._dtype}
        layers = len(model.model.layers)
        self._cache = torch.zeros((layers, 2, rows, self._kv, places, self._size), **make)
        self._weights = [[torch.empty_like(w, dtype=self._dtype) for w in read_weights(b)] for b in model.model.layers]
        self._embed = torch.empty_like(model.model.embed_tokens.weight, dtype=self._dtype)
        self._head = torch.empty_like(model.lm_head.weight, dtype=self._dtype)
        self._norm = torch.empty_like(model.model.norm.weight, dtype=self._dtype)
        self._token = torch.zeros(rows, dtype=torch.long, device=self._device)
        self._begin = torch.zeros(rows, dtype=torch.long, device=self._device)
        self._at = torch.zeros((), dtype=torch.long, device=self._device)
        self._log = torch.zeros(rows, device=self._device)
        positions = torch.arange(places, device=self._device)
        cos, sin = model.model.rotary_emb(torch.zeros(1, 1, 1, device=self._device), positions[None])
        half = self._size // 2
        self._cos, self._sin = cos[0, :, :half].float(), sin[0, :, :half].float()
        self._index = positions
        self._graphs: dict[tuple[int, bool], Any] = {}
        self._temperature = 0.0
        self._noise: Tensor | None = None

    @torch.no_grad()
    def load(self, model: Any) -> None:
        """Copy the weights of a model of the same shape."""
        for mine, block in zip(self._weights, model.model.layers, strict=True):
            for target, source in zip(mine, read_weights(block), strict=True):
                target.copy_(source)
        self._embed.copy_(model.model.embed_tokens.weight)
        self._head.copy_(model.lm_head.weight)
        self._norm.copy_(model.model.norm.weight)

    @torch.no_grad()
    def answer(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> list[Reply]:
        """Answer each prompt with at most its limit of tokens; prompts and limits of like lengths run together.

        A prompt that leaves no room for its limit in the cache loses its head.
        """
        replies: list[Reply | None] = [None] * len(prompts)
        order = sorted(
            range(len(prompts)), key=lambda i: (self._find_reach(len(prompts[i]) + limits[i] + 1), limits[i])
        )
        for start in range(0, len(order), self._rows):
            group = order[start : start + self._rows]
            found = self._answer_group([prompts[i] for i in group], max(limits[i] for i in group))
            for i, reply in zip(group, found, strict=True):
                cut = len(reply.ids) > limits[i]
                replies[i] = Reply(reply.ids[: limits[i]], reply.confidence, reply.whole and not cut)
        return [reply for reply in replies if reply is not None]

    @torch.no_grad()
    def sample(self, prompts: Sequence[Sequence[int]], limits: Sequence[int], *, temperature: float) -> list[Reply]:
        """Answer each prompt as `answer` does, each token drawn from the distribution at this temperature."""
        words = self._head.shape[0]
        self._temperature = temperature
        self._noise = torch.empty((self._rows, words), device=self._device)
        try:
            return self.answer(prompts, limits)
        finally:
            self._temperature, self._noise = 0.0, None
            self._graphs = {key: graph for key, graph in self._graphs.items() if not key[1]}

    def _answer_group(self, prompts: Sequence[Sequence[int]], limit: int) -> list[Reply]:
        room = self._places - limit - 1
        prompts = [prompt[-room:] for prompt in prompts]
        width = max(map(len, prompts))
        ids = torch.zeros((self._rows, width), dtype=torch.long)
        begin = torch.full((self._rows,), width - 1, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            begin[row] = width - len(prompt)
        self._begin.copy_(begin)
        reach = self._find_reach(width + limit + 1)
        self._draw()
        self._prefill(ids.to(self._device))
        tokens, logs = [self._token.clone()], [self._log.clone()]
        self._at.fill_(width)
        ended = tokens[0][: len(prompts)] == self._end
        for step in range(limit):
            if step % 8 == 7 and bool(ended.all()):
                break
            self._draw()
            self._step(reach)
            tokens.append(self._token.clone())
            logs.append(self._log.clone())
            ended = ended | (self._token[: len(prompts)] == self._end)
        return self._collect(torch.stack(tokens, 1).tolist(), torch.stack(logs, 1).tolist(), len(prompts))

    def _collect(self, tokens: list[list[int]], logs: list[list[float]], count: int) -> list[Reply]:
        replies = []
        for row in range(count):
            whole = self._end in tokens[row]
            length = tokens[row].index(self._end) if whole else len(tokens[row])
            replies.append(Reply(tuple(tokens[row][:length]), sum(logs[row][: length + 1]), whole))
        return replies

    def _prefill(self, ids: Tensor) -> None:
        """Compute whole prompts, some rows at a time; leaves the first new token of each row."""
        width = ids.shape[1]
        part = max(1, 65_536 // width)
        for start in range(0, self._rows, part):
            rows = slice(start, min(self._rows, start + part))
            begin = self._begin[rows]
            place = (self._index[:width][None] - begin[:, None]).clamp(min=0)
            visible = (self._index[:width][None] >= begin[:, None])[:, None, None, :]
            causal = self._index[:width][:, None] >= self._index[:width][None]
            mask = (visible & causal) | torch.eye(width, dtype=torch.bool, device=self._device)
            x = embedding(ids[rows], self._embed)
            for layer, weights in enumerate(self._weights):
                q, k, v = self._project(x, weights, self._cos[place][:, :, None], self._sin[place][:, :, None])
                self._cache[layer, 0, rows, :, :width] = k.transpose(1, 2)
                self._cache[layer, 1, rows, :, :width] = v.transpose(1, 2)
                made = self._attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask)
                x = self._finish(x, made.transpose(1, 2).flatten(2), weights)
            self._token[rows], self._log[rows] = self._choose(x[:, -1], rows)

    def _find_reach(self, places: int) -> int:
        return next((reach for reach in _REACHES if places <= reach < self._places), self._places)

    def _step(self, reach: int) -> None:
        if not self._cuda:
            self._decode(reach)
            return
        key = reach, self._noise is not None
        if key not in self._graphs:
            at = self._at.clone()
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            kept = self._token.clone()
            with torch.cuda.stream(stream):
                self._decode(reach)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            self._at.copy_(at)
            with torch.cuda.graph(graph):
                self._decode(reach)
            self._graphs[key] = graph
            # Warming up wrote the place that is computed now once more: the same keys come there again.
            self._at.copy_(at)
            self._token.copy_(kept)
        self._graphs[key].replay()

    def _decode(self, reach: int) -> None:
        place = (self._at - self._begin).clamp(min=0)
        index = self._index[None, :reach]
        visible = (index >= self._begin[:, None]) & (index <= self._at)
        mask = visible[:, None, None, :]
        x = embedding(self._token[:, None], self._embed)
        cos, sin = self._cos[place][:, None, None], self._sin[place][:, None, None]
        for layer, weights in enumerate(self._weights):
            q, k, v = self._project(x, weights, cos, sin)
            self._cache[layer, 0].index_copy_(2, self._at[None], k.transpose(1, 2))
            self._cache[layer, 1].index_copy_(2, self._at[None], v.transpose(1, 2))
            keys, values = self._cache[layer, :, :, :, :reach]
            made = self._attend(q.transpose(1, 2), keys, values, mask)
            x = self._finish(x, made.transpose(1, 2).flatten(2), weights)
        token, log = self._choose(x[:, 0], slice(None))
        self._token.copy_(token)
        self._log.copy_(log)
        self._at += 1

    def _project(self, x: Tensor, weights: list[Tensor], cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        narrow = rms_norm(x, (x.shape[-1],), weights[0], self._eps)
        q = linear(narrow, weights[1]).unflatten(-1, (self._heads, self._size))
        k = linear(narrow, weights[2]).unflatten(-1, (self._kv, self._size))
        v = linear(narrow, weights[3]).unflatten(-1, (self._kv, self._size))
        return _rotate(q, cos, sin), _rotate(k, cos, sin), v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        made: Tensor = scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return made

    def _finish(self, x: Tensor, made: Tensor, weights: list[Tensor]) -> Tensor:
        x = x + linear(made, weights[4])
        narrow = rms_norm(x, (x.shape[-1],), weights[5], self._eps)
        return x + linear(silu(linear(narrow, weights[6])) * linear(narrow, weights[7]), weights[8])

    def _draw(self) -> None:
        """Draw the noise of the next token, outside of the graph."""
        if self._noise is not None:
            self._noise.exponential_()

    def _choose(self, x: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        logits = linear(rms_norm(x, (x.shape[-1],), self._norm, self._eps), self._head).float()
        if self._noise is None:
            best, token = logits.max(dim=-1)
        else:
            # The logarithm of exponential noise is Gumbel's, negated: the largest sum is a draw from the softmax.
            token = (logits - self._temperature * self._noise[rows].log()).argmax(dim=-1)
            best = logits.gather(-1, token[:, None])[:, 0]
        return token, best - logits.logsumexp(dim=-1)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.float().chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1).to(x.dtype)
