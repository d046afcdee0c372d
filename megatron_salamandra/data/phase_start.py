"""Where the languages of a run start if it goes on from an earlier one: ``ordinals.lock.yaml``.

Frozen in the run directory when the run starts, because the earlier run may train on or be deleted.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import yaml

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.foundation.own_sums import drop_own_sum, own_sum_holds, with_own_sum
from megatron_salamandra.foundation.yaml_files import YamlError, parse_yaml
from megatron_salamandra.run_directory import RunDirectory
from salamandra_data.errors import DataError, DataWarning

_HEADING = "# Where each language starts in this run: ordinals of its first sample, left by an earlier run.\n"


_KEYS = {"continue_from", "checkpoint", "new_text", "start_ordinals"}


@dataclass(frozen=True)
class PhaseStart:
    """What a run has got from the run that it goes on from.

    Attributes:
        continue_from: absolute path of the earlier run's directory, or of the checkpoint that was named.
        checkpoint: name of the checkpoint that the ordinals are of.
        new_text: sources that start at 0 because their text is another one, in order of name.
        start_ordinals: name of a source -> ordinal of its first sample. Sources that the run does not draw are
            named as well: a phase after it may take them up again.
    """

    continue_from: Path
    checkpoint: str
    new_text: tuple[str, ...]
    start_ordinals: dict[str, int]

    def freeze(self, run_dir: Path) -> None:
        """Write ``run_dir/ordinals.lock.yaml`` in one step."""
        contents = {
            "continue_from": str(self.continue_from),
            "checkpoint": self.checkpoint,
            "new_text": list(self.new_text),
            "start_ordinals": self.start_ordinals,
        }
        text = yaml.safe_dump(contents, sort_keys=False, allow_unicode=True, width=1000)
        atomic_write_bytes(RunDirectory(run_dir).ordinals_lock, with_own_sum((_HEADING + text).encode()))

    @classmethod
    def load(cls, run_dir: Path) -> PhaseStart:
        """Read ``run_dir/ordinals.lock.yaml``.

        One that has no checksum of itself, as earlier ones, is read with a warning (:class:`DataWarning`).

        Raises:
            DataError: it is missing, or not what :meth:`freeze` writes.
        """
        path = RunDirectory(run_dir).ordinals_lock
        try:
            raw = path.read_bytes()
            holds = own_sum_holds(raw)
            if holds is False:
                raise ValueError("it does not have its own checksum: it was damaged, cut short, or changed")
            contents = parse_yaml(raw.decode(), str(path))
            drop_own_sum(contents)
            if unknown := contents.keys() - _KEYS:
                raise ValueError(f"the key {min(unknown)} is not known")
            start = cls(
                continue_from=Path(contents["continue_from"]),
                checkpoint=str(contents["checkpoint"]),
                new_text=tuple(contents["new_text"]),
                start_ordinals={
                    source: int(ordinal) for source, ordinal in contents["start_ordinals"].items()
                },
            )
        except FileNotFoundError as error:
            raise DataError(
                f"{path}: missing, so it is not known where the languages of this run started\n  restore it"
            ) from error
        except (OSError, YamlError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: cannot be read: {error!r}\n  restore it") from error
        if holds is None:
            warnings.warn(
                f"{path}: has no checksum of itself, as earlier ones; if it was cut short, languages start anew\n"
                "  compare start_ordinals with the report of the run that it names",
                DataWarning,
                stacklevel=2,
            )
        return start
