"""What speaks against a job, and whether a person may submit it all the same."""

from __future__ import annotations

from dataclasses import dataclass, field

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE


class Refused(UserError):
    """The job would fail, so it was not submitted."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True)
class Objection:
    """One reason not to submit a job.

    Attributes:
        text: what is wrong and, on an indented second line, what would help.
        forcible: it rests on an estimate, or on something that may be another when the job starts.
    """

    text: str
    forcible: bool = False


@dataclass
class Findings:
    """What checks found.

    Attributes:
        notes: what a user should know although the job is submitted; what could not be checked, above all.
    """

    objections: list[Objection] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def object(self, text: str, *, forcible: bool = False) -> None:
        """Take down a reason not to submit."""
        self.objections.append(Objection(text, forcible))

    def note(self, text: str) -> None:
        """Take down what a user should know."""
        self.notes.append(text)

    def take(self, other: Findings) -> None:
        """Take over what other checks found."""
        self.objections += other.objections
        self.notes += other.notes


def refuse(found: Findings, *, forced: bool) -> None:
    """Raise unless nothing stands against the job, or what does may be overridden and is to be (then it is a note).

    Raises:
        Refused: with every reason, and with what could not be checked.
    """
    left = [entry for entry in found.objections if not (forced and entry.forcible)]
    if not left:
        found.notes += [
            f"--force: submitted although {entry.text.splitlines()[0]}" for entry in found.objections
        ]
        return
    lines = [
        f"{entry.text}\n  --force submits it all the same" if entry.forcible else entry.text for entry in left
    ]
    unchecked = [note for note in found.notes if "could not be checked" in note]
    raise Refused("\n".join([*lines, *unchecked]))
