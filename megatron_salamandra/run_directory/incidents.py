"""``incidents/``: steps that were not like the others, each with what it was trained on, written and read here.

::

    RUN/incidents/
      0001-step-00012345.json
      0001-replay/               a run of its own that repeats the steps up to it, if somebody asked for one
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.json_files import read_json_object, write_json

_NAME = re.compile(r"(\d{4,})-step-(\d+)\.json")


class IncidentError(UserError):
    """An incident cannot be read; the message names the file."""


@dataclass(frozen=True)
class Incident:
    """One step that was not like the others.

    Attributes:
        number: from 1, in the order in which they were found.
        step: the step.
        kind: ``not finite``, ``spike``, or ``twins`` (weights that differ between ranks).
        action: ``none``, ``fail``, ``skip``, ``roll_back`` or ``restore``.
        reason: for people.
        loss, grad_norm: of the step, in nats and as L2 norm before clipping; may be NaN or infinite.
        samples: first and last number, in the stream of the step's phase.
        contents: for each sample its number, source, language, epoch, window and documents; empty if the shards could
            not be read.
    """

    number: int
    step: int
    kind: str
    action: str
    reason: str
    loss: float
    grad_norm: float
    samples: tuple[int, int]
    contents: Sequence[Mapping[str, Any]]

    @property
    def file_name(self) -> str:
        """Below ``incidents/``."""
        return f"{self.number:04d}-step-{self.step:08d}.json"


def next_incident_number(directory: Path) -> int:
    """The number that the next incident below ``directory`` (``RUN/incidents``) gets."""
    return max(_numbered(directory), default=0) + 1


def incident_number(directory: Path, step: int, samples: tuple[int, int]) -> int:
    """The number of an incident that was found now: the next, unless it was recorded before.

    It was if a run that was killed is trained up to the same step and samples again.
    """
    for number, path in sorted(_numbered(directory).items(), reverse=True):
        if path.name.endswith(f"-step-{step:08d}.json"):
            with contextlib.suppress(IncidentError):
                if read_incident(directory, number).samples == samples:
                    return number
    return next_incident_number(directory)


def write_incident(directory: Path, incident: Incident) -> Path:
    """Write an incident, atomically, and return its file. JSON has no NaN, so numbers that are none become text.

    Raises:
        OSError, WriteError: the system refused.
    """
    directory.mkdir(parents=True, exist_ok=True)
    values = asdict(incident)
    for name in ("loss", "grad_norm"):
        values[name] = repr(values[name])
    path = directory / incident.file_name
    write_json(path, values)
    return path


def read_incident(directory: Path, number: int) -> Incident:
    """Incident ``number`` below ``directory`` (``RUN/incidents``).

    Raises:
        IncidentError: there is none, or its file cannot be read.
    """
    found = _numbered(directory)
    if number not in found:
        known = f"it has {', '.join(map(str, sorted(found)))}" if found else "it has none"
        raise IncidentError(f"{directory}: no incident {number}; {known}")
    path = found[number]
    values = read_json_object(path, error_class=IncidentError)
    try:
        return Incident(
            number=int(values["number"]),
            step=int(values["step"]),
            kind=str(values["kind"]),
            action=str(values["action"]),
            reason=str(values["reason"]),
            loss=float(values["loss"]),
            grad_norm=float(values["grad_norm"]),
            samples=(int(values["samples"][0]), int(values["samples"][1])),
            contents=list(values["contents"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise IncidentError(f"{path} is no record of an incident: {error!r}") from error


def _numbered(directory: Path) -> dict[int, Path]:
    if not directory.is_dir():
        return {}
    matches = ((_NAME.fullmatch(path.name), path) for path in directory.iterdir())
    return {int(match.group(1)): path for match, path in matches if match}
