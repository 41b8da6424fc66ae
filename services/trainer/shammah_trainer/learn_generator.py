"""Steps 1 to 3 of a round: start from the champion's generator, fine-tune it on the plan's rows, export, check parity.

Returns a version folder; it knows no judges and no store.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from shammah_chassis.text import normalise_query
from shammah_generator.chat import encode_prompt, load_tokenizer
from shammah_generator.model import TOKENIZER_NAME
from tokenizers import Tokenizer

from shammah_trainer.batches import SftRow
from shammah_trainer.cache_filler import CacheFiller
from shammah_trainer.export_generator import PARITY_PROMPTS, check_parity, compute_expected, export_generator
from shammah_trainer.fill_ahead import compiles_behind, fill_ahead, guess_tokens
from shammah_trainer.later import Later
from shammah_trainer.ledger import LedgerRow
from shammah_trainer.phases import Phases
from shammah_trainer.policy import TrainingPolicy, cap_user_weights, summarise_provenance
from shammah_trainer.processes import Processes
from shammah_trainer.publishing import Description, Version, describe_version, write_manifest
from shammah_trainer.round_plan import RoundPlan
from shammah_trainer.sft import Resume, SftHyper, SftResult
from shammah_trainer.soup import fine_tune_soup
from shammah_trainer.student import Student, load_student
from shammah_trainer.training_rows import balance_rows, encode_rows, make_rows, vary_rows

_DEV_ROWS = 128  # enough for a loss; all of them would cost a minute on a CPU


@dataclass(frozen=True, slots=True)
class LearnedGenerator:
    """The new version and what the training said; the champion's own version and no losses when nothing was new.

    `parity`: the check of the exported graph, where it is still under way; see `confirm`.
    """

    version: Version
    result: SftResult | None
    parity: Later[float] | None = None

    def confirm(self) -> LearnedGenerator:
        """Wait for the check and write the manifest, which has its result: nothing may be published before.

        Raises:
            ArtifactError: the exported graph does not compute what PyTorch computes.
        """
        if self.parity is None:
            return self
        try:
            difference = self.parity.take()
        finally:
            self.parity.close()
        manifest = self.version.manifest
        checked = replace(manifest, metrics={**manifest.metrics, "parity": difference})
        version = Version(self.version.folder, checked)
        write_manifest(version)
        return LearnedGenerator(version, self.result)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorTask:
    """What is needed to train one generator. `resume_dir`: where a training that a crash ended is taken up.

    `check_behind`: the exported graph is checked in a thread, and the caller waits for it (`LearnedGenerator.confirm`).
    `written` is told when the files that a model is loaded from are there. `filler`: processes that compile, if its
    caller has begun them and closes them; else they are begun here, where the training is long enough. `taken`:
    normalised queries that no row made up here may have, beside those of the judging rows.
    """

    parent: Version
    out: Path
    plan: RoundPlan
    policy: TrainingPolicy
    hyper: SftHyper
    device: torch.device
    threads: int
    resume_dir: Path | None = None
    check_behind: bool = False
    written: Callable[[Path], None] = lambda folder: None
    filler: CacheFiller | None = None
    taken: frozenset[str] = frozenset()


def learn_generator(task: GeneratorTask, phases: Phases) -> LearnedGenerator:
    """Train, export and check one generator.

    Raises:
        DivergedError: the loss is not a number any more.
        ArtifactError: the exported graph does not compute what PyTorch computes.
    """
    new = [row for row in task.plan.new if task.policy.allows(row.example, "generator")]
    # Where the policy leaves nothing new, one epoch's share of old rows is all that there is to recall.
    recalled = task.plan.replay if new else task.plan.replay[: len(task.plan.new)]
    rows = new + [row for row in recalled if task.policy.allows(row.example, "generator")]
    if not rows:
        return LearnedGenerator(task.parent, None)
    with fill_ahead(task.device, wanted=_wants_filler(task, rows[: 2 * len(new)])) as begun:
        student, tokenizer, result = _train(task, phases, new, rows, task.filler or begun)
    with phases.run("export", "exporting the generator and checking parity"):
        learned = _export(task, student, tokenizer, result, rows)
        del student
        return learned if task.check_behind else learned.confirm()


def _wants_filler(task: GeneratorTask, epoch: Sequence[LedgerRow]) -> bool:
    """Whether processes that compile are to be begun here, as far as the text of one epoch's rows tells."""
    characters = sum(len(row.example.query_text) + len(row.example.response) for row in epoch)
    tokens = guess_tokens(characters, task.hyper)
    return task.filler is None and compiles_behind(task.hyper, task.device, tokens=tokens)


def _train(
    task: GeneratorTask, phases: Phases, new: Sequence[LedgerRow], rows: Sequence[LedgerRow], filler: CacheFiller | None
) -> tuple[Student, Tokenizer, SftResult]:
    """Load the student, encode `rows` (the `new` ones and behind them those that are recalled) and train."""
    with phases.run("load", "loading the champion's generator"):
        student = load_student(task.parent.folder, device=task.device)
        tokenizer = load_tokenizer(task.parent.folder / TOKENIZER_NAME)
        train, replay = _encode(task, tokenizer, new, rows)
        dev = encode_rows(task.plan.dev[:_DEV_ROWS], tokenizer)
    with phases.run("train", f"fine-tuning the generator on {len(rows)} rows") as advance:
        resume = Resume(task.resume_dir, task.parent.manifest.version) if task.resume_dir else None
        result = fine_tune_soup(
            student,
            train,
            dev,
            hyper=task.hyper,
            replay=replay,
            progress=advance,
            resume=resume,
            processes=Processes(filler=filler),
        )
    return student, tokenizer, result


def _encode(
    task: GeneratorTask, tokenizer: Tokenizer, new: Sequence[LedgerRow], rows: Sequence[LedgerRow]
) -> tuple[list[SftRow], list[SftRow]]:
    """Return the new rows, further ones that are computed from them behind, and those that are recalled."""
    hyper = task.hyper
    # An epoch recalls one old row for each new one: a user's share is of such an epoch.
    epoch = cap_user_weights([row.example for row in rows[: 2 * len(new)]], task.policy)
    whole = cap_user_weights([row.example for row in rows], task.policy)
    varied = vary_rows(
        rows,
        count=hyper.variants,
        word_dropout=hyper.word_dropout,
        coined=hyper.coined,
        seed=hyper.seed,
        judges=task.plan.judges,
    )
    encoded = [
        encode_rows(rows[part], tokenizer, weights=weights[part], variants=varied[part])
        for part, weights in ((slice(len(new)), epoch), (slice(len(new), None), whole))
    ]
    if hyper.computed or hyper.copied:
        taken = {normalise_query(row.example.query_text) for row in task.plan.judges} | task.taken
        further = make_rows(new, hyper, taken=taken)
        encoded[0] += encode_rows(
            [made.row for made in further],
            tokenizer,
            weights=[epoch[made.source] for made in further],
            variants=[made.variants for made in further],
        )
    train, replay = (balance_rows(part, hyper.balance) for part in encoded)
    return train, replay


def _export(
    task: GeneratorTask, student: Student, tokenizer: Tokenizer, result: SftResult, rows: Sequence[LedgerRow]
) -> LearnedGenerator:
    """Write the files, begin their check and describe them meanwhile; the manifest is not written yet."""
    export_generator(student, task.parent.folder / TOKENIZER_NAME, task.out)
    task.written(task.out)
    about = Description(
        config=student.config,
        hyper={**asdict(task.hyper), "device": str(task.device)},
        metrics=asdict(result),
        provenance=summarise_provenance([row.example for row in rows], task.policy),
        position=task.plan.position,
    )
    # The digest of the weights takes as long as PyTorch's logits.
    describing = Later(
        lambda: describe_version("generator", task.out, parent=task.parent.manifest, about=about), name="describe"
    )
    try:
        expected = compute_expected(student, _choose_prompts(task, tokenizer))
        student.model.to("meta")  # the graph needs the room
        if task.device.type == "cpu":
            gc.collect()  # where its memory is the graph's; with all that torch imports it takes a third of a second
        # Behind a GPU's rollouts it leaves half of the cores to them.
        threads = max(1, task.threads // 2) if task.check_behind else task.threads
        parity = Later(lambda: check_parity(task.out, expected, threads=threads), name="parity")
        try:
            return LearnedGenerator(describing.take(), result, parity)
        except BaseException:
            parity.close()
            raise
    finally:
        describing.close()


def _choose_prompts(task: GeneratorTask, tokenizer: Tokenizer) -> list[list[int]]:
    """Return real prompts for the parity check: of dev rows first, then of rows that were trained on."""
    rows = [*task.plan.dev, *task.plan.train][:PARITY_PROMPTS]
    return [encode_prompt(tokenizer, row.example.query) for row in rows]
