"""What speaks against a job, and whether a person may submit it all the same."""

from __future__ import annotations

from dataclasses import dataclass, field


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
