"""The steps of one fine-tuning: bins prepared ahead, passes, clipping, AdamW, and what goes on beside them.

Beside them: the learning-rate schedule, memory that runs out (smaller bins, the same steps), weight averages, dev
checks with the best weights kept, the saved state. It knows flat weights and numbers, not what a row says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from shammah_trainer.averaging import Anchor, WeightAverage
from shammah_trainer.batches import (
    BinLimits,
    BinShape,
    RowTable,
    Step,
    choose_shape,
    fill_bin,
    plan_steps,
    split_step,
    weigh,
)
from shammah_trainer.cache_filler import CacheFiller, has_room
from shammah_trainer.fill_ahead import compiles_behind
from shammah_trainer.flat_llama import Bin
from shammah_trainer.flat_parameters import FlatParameters
from shammah_trainer.health import HealthWatch
from shammah_trainer.hyper import Resume, SftHyper
from shammah_trainer.passes import Passes, PassOptions, stage
from shammah_trainer.prefetch import prefetch
from shammah_trainer.problems import DeviceMemoryError
from shammah_trainer.processes import BY_ITSELF, Processes
from shammah_trainer.sft_state import clear_state, load_state, make_key, save_state
from shammah_trainer.student import Network

_GRAPH_BINS = 12
_PADDING = 0  # any id will do: padding is rows of its own, of weight nought
_TELL_SECONDS = 0.1


def _never() -> float:
    return math.inf


class SftRun:
    """One training over a table of rows. Make it, call `run` once, then `take_best`, and always `close`."""

    def __init__(
        self,
        model: Network,
        learning: Sequence[Any],
        table: RowTable,
        *,
        hyper: SftHyper,
        evaluate: Callable[[], float] = _never,
        processes: Processes = BY_ITSELF,
    ) -> None:
        """`learning`: the parameters that learn. `evaluate` returns the dev loss of the model as it is.

        Processes that were begun ahead to compile are closed here, at once where nothing is compiled beside the steps.
        """
        self._model, self._table, self._hyper = model, table, hyper
        self._share, self._evaluate = processes.share, evaluate
        self.device: torch.device = model.model.embed_tokens.weight.device
        self._limits = BinLimits(hyper.batch_tokens, hyper.max_rows_per_batch)
        self._shape: BinShape | None = None
        self._fix_shape()
        # Without labels there is nothing to learn: no step.
        epochs = hyper.epochs if len(table.learned) else 0
        self.steps: list[Step] = plan_steps(
            table, epochs=epochs, limits=self._limits, per_step=hyper.accumulate * self._share.size, seed=hyper.seed
        )
        self._done = 0
        self.notes: list[str] = []
        # As early as can be: these processes load torch while the first steps are prepared.
        self._filler = self._begin_filler(processes.filler)
        self.parameters = FlatParameters(learning, learning_rate=hyper.learning_rate, weight_decay=hyper.weight_decay)
        self._average = WeightAverage(hyper, len(self.steps))
        self._anchor = Anchor(hyper, self.parameters.vector, recalls=0 < table.replayed < len(table))
        self._best: tuple[float, Tensor] | None = None
        self._worse = 0
        self._resume: Resume | None = None
        self._key = ""
        self._passes: Passes | None = None
        self._told = self._saved = 0.0
        self._checks = _choose_checks(hyper, len(self.steps))
        self.prepare_seconds = 0.0
        self.engine = ""
        self.timings: dict[str, float] = {}
        self._checked = -1
        self._watch = HealthWatch(self.device, len(self.steps))

    def may_resume(self, resume: Resume | None, dev: RowTable) -> None:
        """Take up the saved state of the same run, if there is one, and save from now on."""
        if resume is None or self._share.size > 1:
            return
        self._resume = resume
        self._key = make_key(self._table, dev, self._hyper, parent=resume.parent, device=self.device.type)
        state = load_state(resume.folder, self._key)
        if state is None:
            return
        self._done = int(state.numbers["step"])
        self.parameters.vector.copy_(state.tensors["vector"])
        moments = {n.removeprefix("moment."): t for n, t in state.tensors.items() if n.startswith("moment.")}
        self.parameters.write_moments(moments)
        if "mean" in state.tensors:
            self._average.mean = state.tensors["mean"].to(self.device)
        self._average.count = int(state.numbers["averaged"])
        if "best" in state.tensors:
            self._best = (state.numbers["best_loss"], state.tensors["best"].to(self.device))
        self._worse = int(state.numbers["worse"])
        self.notes.append(f"taken up at step {self._done} of {len(self.steps)} after an interruption")

    def run(self, progress: Callable[[float], None] = lambda share: None) -> tuple[int, bool]:
        """Make all steps; return how many were made and whether it ended early (time, or dev loss).

        Raises:
            DivergedError: a loss is not finite.
            DeviceMemoryError: a single row is too much for the device.
        """
        began = self._told = self._saved = time.monotonic()
        total = len(self.steps)
        self._model.train()
        progress(self._done / max(1, total))
        while self._done < total:
            try:
                for step, staged in self._stage_from(self._done):
                    if self._is_over(began):
                        return self._finish(progress, cut=True)
                    self.step(step, staged)
                    self._done = step + 1
                    if self._look_around(progress):
                        return self._finish(progress, cut=True)
            except torch.OutOfMemoryError as error:
                self._shrink(error)
        return self._finish(progress, cut=False)

    def step(self, number: int, staged: list[Tensor | Bin]) -> None:
        """Make one step of prepared bins (see `stage`); on a GPU nothing is waited for but by `Passes.pace`."""
        if self._passes is None:
            self._prepare(staged)
        passes = self._passes
        if passes is None:
            raise RuntimeError("the run is closed")
        if passes.improvable:
            self._improve(passes, staged)
        for part in staged:
            passes.add(part)
        self._share.add_up(self.parameters.gradient, passes.loss)
        norm = self.parameters.clip(self._hyper.clip_norm)
        self._watch.note(number, passes.loss, norm)
        rate = self._hyper.learning_rate * rate_at(number, len(self.steps), self._hyper.warmup_share)
        self.parameters.update(rate)
        self._anchor.pull(self.parameters.vector, rate)
        passes.loss.zero_()
        self._average.note(self.parameters.vector, number)
        passes.pace()

    def stage(self, number: int) -> list[Tensor | Bin]:
        """Fill this process' bins of a step, ready for `step`; may run in another thread."""
        bins = self.steps[number]
        weight = weigh(self._table, bins)
        filled = [
            fill_bin(self._table, rows, total_weight=weight, pad_id=_PADDING, shape=self._shape)
            for rows in bins[self._share.rank :: self._share.size]
        ]
        return [stage(part, shape=self._shape, device=self.device) for part in filled]

    def take_best(self) -> None:
        """Leave in the model what the run is to be judged by: the best weights by dev loss, else the average."""
        if self._hyper.dev_checks and self.steps:
            if self._checked != self._done:
                self._check_dev(self._done)
            if self._best is not None:
                self.parameters.vector.copy_(self._best[1])
        else:
            self._average.apply(self.parameters.vector)
        kept = self._anchor.keep(self.parameters.vector, lambda: self._share.agree(self._evaluate(), self.device))
        if kept:
            self.notes.append(f"{kept:.0%} of the weights that it started from are kept")

    def close(self) -> None:
        """Free what the run held; the model keeps its weights."""
        if self._filler is not None:
            self._filler.close()
        if self._passes is not None:
            self._passes.close()
            self.timings |= {name: round(seconds, 3) for name, seconds in self._passes.timings.items()}
        self.parameters.release()
        self._model.eval()

    def forget(self) -> None:
        """Remove the saved state: the run is over."""
        if self._resume is not None:
            clear_state(self._resume.folder)

    def prepare(self) -> None:
        """Capture ahead of the steps and begin to compile, where that is done at all; `run` would, a little later.

        What else comes before the steps then takes no time: the compiler works behind it.
        """
        if self.device.type != "cuda" or not self.steps:
            return
        try:
            self._prepare(self.stage(self._done))
        except torch.OutOfMemoryError:
            # The steps find the size that fits; see `_shrink`.
            if self._passes is not None:
                self._passes.close()
            self._passes = None
            self._clear()
            torch.cuda.empty_cache()

    def _improve(self, passes: Passes, staged: list[Tensor | Bin]) -> None:
        """Go over to compiled blocks between two steps: gradient and loss hold nothing yet."""
        before, known = passes.seconds, len(passes.notes)
        passes.improve(staged[0])
        self.prepare_seconds += passes.seconds - before
        self._clear()
        self.engine = passes.engine
        self.notes += passes.notes[known:]
        self.notes.append(f"{self._done} of {len(self.steps)} steps were made before the compiled blocks were ready")

    def _stage_from(self, first: int) -> Iterator[tuple[int, list[Tensor | Bin]]]:
        numbers = range(first, len(self.steps))
        return zip(numbers, prefetch(self.stage, numbers), strict=True)

    def _prepare(self, staged: list[Tensor | Bin]) -> None:
        """Make the passes; compile and capture what pays for the bins that are to come."""
        filler, self._filler = self._filler or self._begin_filler(), None
        longest = int(self._table.lengths.max(initial=1))
        self._passes = Passes(
            self._model, longest=longest, shape=self._shape, options=self._choose_options(), filler=filler
        )
        if staged:
            self._passes.prepare(staged[0])
        self.prepare_seconds += self._passes.seconds
        self._clear()
        self.engine = self._passes.engine
        self.notes += self._passes.notes

    def _choose_options(self) -> PassOptions:
        bins = sum(len(step) for step in self.steps[self._done :]) // self._share.size
        gpu = self.device.type == "cuda"
        pays = compiles_behind(self._hyper, self.device, tokens=bins * self._limits.tokens)
        return PassOptions(
            compiled=self._shape is not None and (self._hyper.compile_mode == "on" or pays),
            graph=gpu and self._hyper.cuda_graph and bins >= _GRAPH_BINS,
            # On a CPU the compiler would take the cores from the steps.
            behind=gpu and self._hyper.compile_mode == "auto",
        )

    def _begin_filler(self, begun: CacheFiller | None = None) -> CacheFiller | None:
        """Start the processes that compile, where blocks are compiled behind the steps; several trainers do without."""
        options = self._choose_options()
        wanted = options.compiled and options.behind and self._share.size == 1 and has_room(self.device)
        if begun is not None and not wanted:
            begun.close()
        if not wanted:
            return None
        if begun is not None and not begun.closed:
            return begun
        try:
            return CacheFiller(self.device)
        except OSError as error:
            self.notes.append(f"no process could be started to compile in ({error}): a thread does it")
            return None

    def _clear(self) -> None:
        self.parameters.gradient.zero_()
        if self._passes is not None:
            self._passes.loss.zero_()

    def _fix_shape(self) -> None:
        if self.device.type == "cuda" or self._hyper.compile_mode == "on":
            self._limits, self._shape = choose_shape(self._table, self._limits)

    def _shrink(self, error: BaseException) -> None:
        """Halve the bins of all steps to come: each step teaches the same, in less memory."""
        old = self._limits.tokens
        longest = int(self._table.lengths.max(initial=1))
        if self._share.size > 1 or old // 2 < longest:
            raise DeviceMemoryError(
                f"no room on {self.device} for {old} tokens at once, and the longest row has {longest}; allowed: a "
                "smaller max_tokens, fewer trained layers or a CPU"
            ) from error
        if self._passes is not None:
            self._passes.close()
            self._passes = None
        self._limits = self._limits.halved()
        self._fix_shape()
        self.steps[self._done :] = [split_step(self._table, step, self._limits) for step in self.steps[self._done :]]
        self._clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.notes.append(
            f"out of memory with {old} tokens at once on {self.device}: halved from step {self._done + 1}"
        )

    def _is_over(self, began: float) -> bool:
        return bool(self._hyper.max_seconds) and time.monotonic() - began > self._hyper.max_seconds

    def _look_around(self, progress: Callable[[float], None]) -> bool:
        """Tell, check and save when it is time; return whether the dev loss says that it is enough."""
        now = time.monotonic()
        if now - self._told > _TELL_SECONDS:
            self._told = now
            progress(self._done / len(self.steps))
        if self._done in self._checks and self._check_dev(self._done):
            self.notes.append(f"stopped at step {self._done} of {len(self.steps)}: the dev loss did not fall any more")
            return True
        if self._resume is not None and now - self._saved >= self._hyper.save_seconds:
            self._save()
            self._saved = time.monotonic()
        return False

    def _finish(self, progress: Callable[[float], None], *, cut: bool) -> tuple[int, bool]:
        self._watch.finish()
        progress(1.0)
        return self._done, cut

    def _check_dev(self, step: int) -> bool:
        """Measure the dev loss of the weights (or of their average); keep the best; return whether it is enough."""
        self._checked = step
        vector = self.parameters.vector
        held = None
        if self._average.mean is not None:
            held = vector.clone()
            self._average.apply(vector)
        loss = self._share.agree(self._evaluate(), self.device)
        if self._best is None or loss < self._best[0]:
            self._best, self._worse = (loss, vector.clone()), 0
        else:
            self._worse += 1
        if held is not None:
            vector.copy_(held)
        self._model.train()
        return self._worse >= self._hyper.patience

    def _save(self) -> None:
        if self._resume is None:
            return
        tensors = {"vector": self.parameters.vector}
        tensors |= {f"moment.{name}": value for name, value in self.parameters.read_moments().items()}
        if self._average.mean is not None:
            tensors["mean"] = self._average.mean
        if self._best is not None:
            tensors["best"] = self._best[1]
        numbers = {
            "step": self._done,
            "averaged": self._average.count,
            "worse": self._worse,
            "best_loss": self._best[0] if self._best else math.inf,
        }
        self._watch.finish()
        save_state(self._resume.folder, self._key, tensors, numbers)


def rate_at(step: int, steps: int, warmup_share: float) -> float:
    """Return the share of the peak learning rate at a step: a linear warm-up, then a cosine down to a tenth."""
    warm = max(1, round(steps * warmup_share))
    if step < warm:
        return (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share))


def _choose_checks(hyper: SftHyper, steps: int) -> frozenset[int]:
    """Return after how many steps the dev loss is measured: evenly spread, the last at the end."""
    return frozenset(max(1, round(steps * n / hyper.dev_checks)) for n in range(1, hyper.dev_checks + 1))
