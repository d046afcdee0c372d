"""Loss, perplexity and bits per byte of each language on its held-out text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from megatron.core.distributed import DistributedDataParallel

from megatron_salamandra.data import DocumentRules, MicroBatch, ValidationSet
from megatron_salamandra.hangs import PROGRESS, Part
from megatron_salamandra.run_directory import ValidationLog
from megatron_salamandra.training.callbacks.base import Callback
from megatron_salamandra.training.device_feed import on_device
from megatron_salamandra.training.forward_backward import run_micro_batches
from megatron_salamandra.training.report import LanguageScore, StepReport
from megatron_salamandra.training.runtime import Runtime

MAX_EXPONENT = 700.0
"""exp of more is not a 64-bit number."""


def perplexity(nats_per_token: float) -> float:
    """exp of a loss; infinite where that is no longer a number."""
    return math.exp(nats_per_token) if nats_per_token < MAX_EXPONENT else math.inf


def together(name: str, scores: Sequence[LanguageScore]) -> LanguageScore:
    """One score in which every token and byte counts the same."""
    tokens = sum(score.tokens for score in scores)
    nats = sum(score.loss * score.tokens for score in scores)
    # Bytes of a set follow from its loss in both units.
    read_bytes = sum(
        score.tokens * score.loss / (score.bits_per_byte * math.log(2))
        for score in scores
        if score.bits_per_byte
    )
    return LanguageScore(
        name,
        nats / tokens,
        perplexity(nats / tokens),
        nats / (read_bytes * math.log(2)) if read_bytes else 0.0,
        tokens,
    )


def averages(scores: Sequence[LanguageScore]) -> list[LanguageScore]:
    """``macro`` (every language counts the same) and ``micro`` (every token and byte does)."""
    count = len(scores)
    macro = sum(score.loss for score in scores) / count
    return [
        LanguageScore(
            "macro",
            macro,
            perplexity(macro),
            sum(score.bits_per_byte for score in scores) / count,
            sum(score.tokens for score in scores),
        ),
        together("micro", scores),
    ]


def summaries(languages: Sequence[str], scores: Sequence[LanguageScore]) -> list[LanguageScore]:
    """Each language that has several sources as a whole, and the averages over languages.

    Args:
        languages: of each score's source.
        scores: of the sources.
    """
    by_language: dict[str, list[LanguageScore]] = {}
    for language, score in zip(languages, scores, strict=True):
        by_language.setdefault(language, []).append(score)
    whole = {
        language: together(f"{language} (all sources)", parts)
        for language, parts in by_language.items()
        if len(parts) > 1
    }
    counted = [whole.get(language, parts[0]) for language, parts in by_language.items()]
    return [*whole.values(), *averages(counted)]


@dataclass(frozen=True)
class HeldOut:
    """Held-out text in windows of a phase.

    Attributes:
        sets: by source; may be empty.
        micro_batch_size: windows that a rank runs at once.
    """

    sets: Sequence[ValidationSet]
    micro_batch_size: int


class Validation(Callback):
    """Runs forward over every language's validation windows when the configuration asks for it."""

    part = "validation"

    def __init__(
        self,
        runtime: Runtime,
        chunks: list[DistributedDataParallel],
        held_out: Callable[[], HeldOut],
        *,
        documents: DocumentRules | None,
        look_for_signals: Callable[[], bool],
        catch_up: Callable[[], None],
        announce: Callable[[int, Sequence[LanguageScore]], None],
    ) -> None:
        """Take what the run's view does not have.

        Args:
            held_out: the text to read in the phase that the run is in.
            documents: how the ends of documents count; not at all if None.
            look_for_signals: has the run stop if a signal came, and says so; collective.
            catch_up: lets all callbacks complete what was done in the background meanwhile.
            announce: tells all callbacks the scores of a step.
        """
        self._runtime = runtime
        self._chunks = chunks
        self._held_out = held_out
        self._documents = documents
        self._look_for_signals = look_for_signals
        self._catch_up = catch_up
        self._announce = announce
        self._when = runtime.config.validation
        self._validated_step: int | None = None

    @property
    def _sets(self) -> Sequence[ValidationSet]:
        return self._held_out().sets

    def start(self) -> None:
        wanted = self._when.at_start or self._when.every_steps or self._when.at_end
        if wanted and not self._sets:
            self.run.logger.warning(
                "no validation: the blend has no validation shards (tokenize with --validation-fraction)"
            )
        step = self.run.step
        if step == 0 and self._when.at_start:
            self._validate(0)
        elif step and self._is_due(step) and not self._is_recorded(step):
            self._validate(step)  # it was broken off

    def after_step(self, report: StepReport) -> None:
        # The last step of this process is saved first.
        is_last = self.run.stop_reason is not None or report.step >= self.run.config.total_steps
        if self._is_due(report.step) and not is_last:
            self._validate(report.step)

    def after_roll_back(self, step: int) -> None:
        self._validated_step = step

    def after_last_save(self) -> None:
        step = self.run.step
        if step and self._is_due(step) and self._validated_step != step:
            self._validate(step)

    def has_work_left(self) -> bool:
        step = self.run.step
        complete = step == self.run.config.total_steps
        return bool(complete and self._sets and self._is_due(step) and not self._is_recorded(step))

    def _is_due(self, step: int) -> bool:
        every = self._when.every_steps
        at_end = self._when.at_end and step == self.run.config.total_steps
        return at_end or bool(every and step % every == 0)

    def _is_recorded(self, step: int) -> bool:
        """Whether this process, or by ``validation.jsonl`` an earlier one, has validated ``step``; collective."""
        if self._validated_step != step and self._runtime.max_over_ranks(
            int(self.run.is_writer and has_scores_of(ValidationLog(self.run.directory.validation), step))
        ):
            self._validated_step = step
        return self._validated_step == step

    def _validate(self, step: int) -> None:
        """Score every language, unless a signal breaks it off: the next start makes up for that."""
        for chunk in self._chunks:
            chunk.eval()
        scores: list[LanguageScore] = []
        for validation_set in self._sets:
            PROGRESS.enter(Part.VALIDATION, validation_set.source)
            if self._look_for_signals():
                self.run.logger.info(
                    "the validation of step %d is broken off after %d of %d languages",
                    step,
                    len(scores),
                    len(self._sets),
                )
                return
            with torch.no_grad():
                scores.append(self._score(validation_set))
            self._catch_up()
        self._validated_step = step
        if scores:
            languages = [validation_set.language for validation_set in self._sets]
            self._announce(step, [*scores, *summaries(languages, scores)])
            self._look_for_signals()

    def _score(self, validation_set: ValidationSet) -> LanguageScore:
        runtime = self._runtime
        batches = list(
            validation_set.micro_batches(
                self._held_out().micro_batch_size,
                runtime.grid.data_rank,
                runtime.grid.data_size,
                self._documents,
            )
        )
        loss = run_micro_batches(
            self._chunks,
            on_device(pad_to_pipeline(batches, runtime.grid.pipeline_size), runtime.platform),
            self.run.config,
            runtime.grid,
            forward_only=True,
        )
        nats, tokens = runtime.sum_over_ranks(torch.stack([loss.nats, loss.tokens]))
        mean = nats / tokens
        return LanguageScore(
            language=validation_set.source,
            loss=mean,
            perplexity=perplexity(mean),
            bits_per_byte=validation_set.bits_per_byte(mean),
            tokens=round(tokens),
        )


def has_scores_of(log: ValidationLog, step: int) -> bool:
    """Whether the validation of ``step`` is complete: the averages are written last."""
    return any(record.step == step and record.language == "micro" for record in log.read())


def pad_to_pipeline(batches: list[MicroBatch], pipeline_size: int) -> list[MicroBatch]:
    """Append masked micro-batches until their number is a multiple of the pipeline's size.

    The interleaved schedule insists on it; the additions count nothing.
    """
    last = batches[-1]
    filler = dataclasses.replace(last, loss_mask=torch.zeros_like(last.loss_mask))
    return batches + [filler] * (-len(batches) % pipeline_size)
