"""What a certificate is, and the list of them."""

from __future__ import annotations

import datetime
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from megatron_salamandra.certificates.kernels import prove_kernels
from megatron_salamandra.certificates.layouts import prove_layouts
from megatron_salamandra.certificates.proof import Proof
from megatron_salamandra.certificates.requeue import Drill, prove_requeue
from megatron_salamandra.certificates.resume import prove_resume
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE
from megatron_salamandra.foundation.json_files import write_json
from megatron_salamandra.foundation.names import name_hint
from megatron_salamandra.foundation.source_revision import source_revision
from megatron_salamandra.node_check import check_packages

NAMES = ("layouts", "resume", "kernels", "requeue")


class UnknownCertificate(UserError):
    """There is no certificate of that name."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True)
class Certificate:
    """The result of one proof.

    Attributes:
        seconds: that it took.
        date: UTC, ISO 8601.
        revision: of the project's sources; None if that is not known (an installed package).
        versions: of what it ran with, the project's own and a checksum of its sources among them.
    """

    name: str
    proof: Proof
    seconds: float
    date: str
    host: str
    revision: str | None = None
    versions: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "passed": self.proof.passed}


def certify(
    names: Sequence[str], directory: Path, drill: Drill | None, say: Callable[[str], None]
) -> list[Certificate]:
    """Run the proofs of that names, one after the other; one that breaks has failed, and the others go on.

    Args:
        directory: where they work, and leave their runs; visible to all nodes for ``requeue``.
        drill: what ``requeue`` submits; needed for that one alone.
        say: shows progress.
    Raises:
        UnknownCertificate: there is none of that name, or ``requeue`` without a cluster.
    """
    for name in names:
        if name not in NAMES:
            raise UnknownCertificate(f"--certify {name}: no such certificate\n  {name_hint(name, NAMES)}")
    if "requeue" in names and drill is None:
        raise UnknownCertificate("--certify requeue submits a job\n  name the cluster: --profile NAME")
    proofs: dict[str, Callable[[], Proof]] = {
        "layouts": lambda: prove_layouts(directory / "layouts", say),
        "resume": lambda: prove_resume(directory / "resume", say),
        "kernels": lambda: prove_kernels(say),
    }
    if drill is not None:
        proofs["requeue"] = lambda: prove_requeue(directory / "requeue", drill, say)
    made = []
    for name in dict.fromkeys(names):
        say(f"{name}:")
        started = time.monotonic()
        try:
            proof = proofs[name]()
        except (UserError, OSError, RuntimeError) as error:
            proof = Proof(False, f"could not be run: {error}", {})
        say(f"{name}: {'passed' if proof.passed else 'FAILED'}: {proof.message}")
        made.append(
            Certificate(
                name,
                proof,
                round(time.monotonic() - started, 1),
                datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                socket.gethostname(),
                source_revision(),
                dict(check_packages().facts),
            )
        )
    return made


def write_certificates(made: Sequence[Certificate], path: Path) -> None:
    """Write them all into one JSON file.

    Raises:
        WriteError: the system refused.
    """
    write_json(path, {"certificates": [one.to_dict() for one in made]})
