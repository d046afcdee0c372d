"""``state.json``: what a checkpoint records besides tensors, written and read here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.errors import UserError


class CheckpointError(UserError):
    """A checkpoint cannot be used; the message names the directory and the remedy."""


@dataclass(frozen=True)
class LedgerRecord:
    """What a run had drawn from one source.

    Attributes:
        source, language: names; the same where a language has one source.
        samples, tokens: since the beginning of the run.
        epochs: walks over the source's text.
        next_ordinal: of the next sample of the source.
    """

    source: str
    language: str
    samples: int
    tokens: int
    epochs: float
    next_ordinal: int


@dataclass(frozen=True)
class CheckpointState:
    """The state of a run at one step. Asking for what the file does not have raises :class:`CheckpointError`.

    Attributes:
        values: everything as in the file, also what this version does not know.
        path: of the file, for messages.
    """

    values: Mapping[str, Any]
    path: Path = Path("state.json")

    @classmethod
    def record(
        cls,
        *,
        step: int,
        total_steps: int,
        consumed_samples: int,
        consumed_tokens: int,
        position: Mapping[str, Any] | None,
        skipped_updates: int,
        callbacks: Mapping[str, Any],
        stream: str,
        phase_streams: Sequence[str],
        layout: str,
        versions: Mapping[str, str | None],
        ledger: Iterable[LedgerRecord],
    ) -> CheckpointState:
        """The state to be saved.

        Args:
            step: optimizer steps done, of ``total_steps``.
            consumed_samples, consumed_tokens: trained on in them.
            position: the timeline up to here; None before the first step.
            skipped_updates: steps that left the weights as they were.
            callbacks: state of each callback that has one, by name.
            stream: fingerprint of the stream of samples of the phase that ``step`` is in.
            phase_streams: those of all phases up to it.
            layout: how ranks were laid out, for people.
            versions: of the packages a result depends on.
            ledger: one record for each source.
        """
        values = {
            "step": step,
            "total_steps": total_steps,
            "consumed_samples": consumed_samples,
            "consumed_tokens": consumed_tokens,
            "position": position,
            "skipped_updates": skipped_updates,
            "callbacks": callbacks,
            "stream": stream,
            "phase_streams": list(phase_streams),
            "layout": layout,
            "versions": versions,
            "ledger": [asdict(entry) for entry in ledger],
        }
        return cls(values)

    @property
    def step(self) -> int:
        """Optimizer steps done since the beginning of the run."""
        return self._number("step")

    @property
    def total_steps(self) -> int:
        """Steps the run was to have."""
        return self._number("total_steps")

    @property
    def consumed_samples(self) -> int:
        """Samples trained on since the beginning of the run."""
        return self._number("consumed_samples")

    @property
    def consumed_tokens(self) -> int:
        """Tokens trained on since the beginning of the run."""
        return self._number("consumed_tokens")

    @property
    def skipped_updates(self) -> int:
        """Steps that left the weights as they were; checkpoints of version 0.1 know of none."""
        return self._number("skipped_updates") if "skipped_updates" in self.values else 0

    @property
    def callbacks(self) -> Mapping[str, Any]:
        """States of callbacks by name; empty in checkpoints of version 0.1."""
        return dict(self.values.get("callbacks") or {})

    @property
    def stream(self) -> str:
        """Fingerprint of the stream of samples of the phase that the step is in."""
        return str(self._value("stream"))

    @property
    def phase_streams(self) -> list[str]:
        """Those of all phases up to that of the step; a run of one phase has one."""
        return [str(value) for value in self.values.get("phase_streams", [self.stream])]

    @property
    def layout(self) -> str:
        """How ranks were laid out."""
        return str(self._value("layout"))

    @property
    def ledger(self) -> list[LedgerRecord]:
        """One record for each source; checkpoints of version 0.1 name sources by their languages."""
        entries = self._value("ledger")
        try:
            return [
                LedgerRecord(
                    source=str(entry.get("source", entry["language"])),
                    language=str(entry["language"]),
                    samples=int(entry["samples"]),
                    tokens=int(entry["tokens"]),
                    epochs=float(entry["epochs"]),
                    next_ordinal=int(entry["next_ordinal"]),
                )
                for entry in entries
            ]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self.path}: its ledger cannot be read: {error!r}; use another checkpoint"
            ) from error

    def _value(self, key: str) -> Any:
        try:
            return self.values[key]
        except KeyError as error:
            raise CheckpointError(f"{self.path} has no {key}; use another checkpoint") from error

    def _number(self, key: str) -> int:
        value = self._value(key)
        if not isinstance(value, int):
            raise CheckpointError(
                f"{self.path}: {key} = {value!r} is no whole number; use another checkpoint"
            )
        return value
