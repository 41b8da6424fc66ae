"""Settings of the trainer, from environment variables SHAMMAH_TRAINER_*, and the plain values that its parts take."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import SettingsConfigDict
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.settings import ServiceSettings
from shammah_generator.precision import Precision

from shammah_trainer.hyper import SftHyper, check_hyper
from shammah_trainer.policy import TrainingPolicy
from shammah_trainer.rollouts import RolloutSettings
from shammah_trainer.round import RoundSettings
from shammah_trainer.round_plan import PlanLimits


class TrainerSettings(ServiceSettings):
    """What the trainer is told at its start."""

    model_config = SettingsConfigDict(env_prefix="SHAMMAH_TRAINER_")

    models_dir: Path | None = Field(None, description="Cache of the base models; default ~/.cache/shammah/base.")
    progress_file: Path | None = Field(None, description="Its one line says what the start is doing.")
    auto_train: bool = Field(True, description="Start rounds by batch size and waiting time; else only when asked.")
    batch_size: int = Field(32, ge=1, description="New train rows that start a round.")
    max_wait_seconds: float = Field(3600.0, gt=0, description="New rows start a round after this time even if few.")
    cooldown_seconds: float = Field(60.0, ge=0, description="Least time between two rounds that start by themselves.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Promised most share of bad local answers, per category.")
    delta: float = Field(0.05, gt=0, lt=1, description="Chance that any promise of a release is wrong.")
    tolerance_points: float = Field(3.0, ge=0, lt=100, description="A category may seem this many points worse.")
    precision: Precision = Field("int8", description="Precision that serves, and is certified.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the generator is trained.")
    threads: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=256, description="Threads of a round.")
    sft_epochs: int = Field(2, ge=1, le=100, description="Passes over the rows of a round.")
    sft_learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate of the generator.")
    sft_upper_layers: int = Field(0, ge=0, description="Train only so many upper layers; 0 trains all.")
    sft_batch_tokens: int = Field(1024, ge=16, description="Padded tokens of a training batch at most.")
    sft_batch_rows: int = Field(8, ge=1, description="Rows of a training batch at most.")
    sft_max_tokens: int = Field(512, ge=16, description="Tokens of one training row at most.")
    sft_max_seconds: float = Field(0.0, ge=0, description="Fine-tuning stops after this time; 0: when it is done.")
    sft_compile: Literal["auto", "on", "off"] = Field("auto", description="torch.compile of the training on a GPU.")
    sft_lora_rank: int = Field(0, ge=0, le=512, description="Train additions of this rank (LoRA, needs peft); 0: not.")
    sft_kept: float = Field(
        0.1, ge=0, lt=1, description="Share of the old weights kept where old rows are recalled; without LoRA."
    )
    sft_variants: int = Field(0, ge=0, le=100, description="Variants of a row that take turns with it; see SftHyper.")
    sft_word_dropout: float = Field(0.0, ge=0, lt=1, description="Share of words that variants of label rows miss.")
    sft_computed: int = Field(0, ge=0, le=100, description="Rows computed from each that a formula explains.")
    sft_copied: int = Field(0, ge=0, le=100, description="Rows with other values of each whose response copies some.")
    sft_coined: float = Field(0.0, ge=0, le=1, description="Share of these and of variants' values with made-up words.")
    sft_dev_checks: int = Field(0, ge=0, description="Times that the dev loss is looked at, to stop early; 0: never.")
    sft_save_seconds: float = Field(60.0, ge=0, description="How often a training saves where it could be taken up.")
    sft_seed: int = Field(0, ge=0, description="Seed of the fine-tuning.")
    validator_seconds: float = Field(40.0, gt=0, description="Time for the text stage of the validator.")
    max_new_rows: int = Field(4096, ge=1, description="New train rows of one round at most.")
    max_judged_rows: int = Field(1000, ge=1, description="Dev rows, and exam rows, of a category at most.")
    base_rows: int = Field(50, ge=1, description="Exam rows of a category that release 0 is compared on.")
    rollout_slots: int = Field(8, ge=1, description="Rollouts that are computed together.")
    context: int = Field(1024, ge=2, description="Tokens of prompt and response together, as the generator serves.")
    refused_licences: tuple[str, ...] = Field((), description="Texts that the licence of a row may not contain.")
    user_share: float = Field(0.2, gt=0, le=1, description="Most share of a round's weight that one user may have.")
    lease_seconds: float = Field(30.0, gt=1, description="A trainer that is silent for this long may be replaced.")
    log_max_bytes: int | None = Field(None, ge=1, description="Byte limit of the example log; unset keeps it.")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Refuse at the start what would otherwise end every round: see `check_hyper`."""
        try:
            check_hyper(self._sft())
        except InvalidInputError as error:
            told = re.sub(r"\w+", _name_setting, error.message)
            raise PydanticCustomError("together", "{told}", {"told": told}) from error
        return self

    def plan_limits(self) -> PlanLimits:
        """Return the caps of a round's rows."""
        return PlanLimits(
            fresh_rows=self.max_new_rows,
            retried_rows=max(1, self.max_new_rows // 2),
            judged_rows=self.max_judged_rows,
            epochs=self._sft().epochs,
        )

    def round_settings(self, device: str) -> RoundSettings:
        """Return what a round on `device` is told."""
        return RoundSettings(
            alpha=self.alpha,
            delta=self.delta,
            tolerance_points=self.tolerance_points,
            sft=self._sft(),
            rollouts=RolloutSettings(
                precision=self.precision, threads=self.threads, slots=self.rollout_slots, context=self.context
            ),
            policy=self.policy(),
            validator_seconds=self.validator_seconds,
            base_rows=self.base_rows,
            threads=self.threads,
            device=device,
            resume_dir=self.data_dir / "resume",
        )

    def policy(self) -> TrainingPolicy:
        """Return who may train what."""
        return TrainingPolicy(refused_licences=self.refused_licences, user_share=self.user_share)

    def _sft(self) -> SftHyper:
        return SftHyper(
            epochs=self.sft_epochs,
            learning_rate=self.sft_learning_rate,
            upper_layers=self.sft_upper_layers,
            batch_tokens=self.sft_batch_tokens,
            max_rows_per_batch=self.sft_batch_rows,
            max_tokens=self.sft_max_tokens,
            max_seconds=self.sft_max_seconds,
            seed=self.sft_seed,
            compile_mode=self.sft_compile,
            lora_rank=self.sft_lora_rank,
            kept=0.0 if self.sft_lora_rank else self.sft_kept,
            variants=self.sft_variants,
            word_dropout=self.sft_word_dropout,
            computed=self.sft_computed,
            copied=self.sft_copied,
            coined=self.sft_coined,
            dev_checks=self.sft_dev_checks,
            save_seconds=self.sft_save_seconds,
        )


def _name_setting(word: re.Match[str]) -> str:
    """Return a word, a hyper-parameter as the setting that gives it."""
    known = f"sft_{word[0]}" in TrainerSettings.model_fields
    return f"SFT_{word[0].upper()}" if known else word[0]
