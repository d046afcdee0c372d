"""What the passes of a job leave for each other, and for the same command started again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes, write_error
from salamandra_data.errors import DataError
from salamandra_data.execution import WorkerDied
from salamandra_data.readers import fingerprint
from salamandra_data.storage import Location
from salamandra_data.tokenization.job import TokenizeJob

Value = TypeVar("Value")

_FORMAT = "salamandra-tokenize-work-1"
"""Changes when passes leave their work in another form."""


def job_identity(job: TokenizeJob, files: Sequence[Location], tokenizer_sha256: str) -> str:
    """Of a job on its input as it is now: the same value means the same work, whoever does it."""
    absolute = [path.absolute() if isinstance(path, Path) else path for path in files]
    also = {
        "format": _FORMAT,
        "out": job.out.absolute(),
        "input": fingerprint(absolute),
        "tokenizer": tokenizer_sha256,
    }
    return job.identity(also)[:16]


@dataclass(frozen=True)
class JobDirectory:
    """A hidden directory for the work of one job: runs, encoded ranges, and what passes found, as JSON."""

    path: Path

    @property
    def runs(self) -> Path:
        """Directory of the runs."""
        return self.path / "runs"

    @property
    def ranges(self) -> Path:
        """Directory of encoded ranges of shards."""
        return self.path / "ranges"

    @property
    def encoder(self) -> Path:
        """Directory for the model in the encoder's own form."""
        return self.path / "encoder"

    def make(self) -> None:
        """Make the directory and those in it.

        Raises:
            WriteError: ``scratch`` cannot be written.
        """
        for directory in (self.runs, self.ranges, self.encoder):
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise write_error(directory, error) from error

    def save(self, name: str, value: object) -> None:
        """Leave a dataclass under a name, whole or not at all."""
        atomic_write_bytes(self._file(name), TypeAdapter(type(value)).dump_json(value))

    def has(self, name: str) -> bool:
        """Whether there is a value of this name."""
        return self._file(name).is_file()

    def load(self, name: str, kind: type[Value]) -> Value:
        """The value of a name.

        Raises:
            DataError: there is none, though what leaves it was done, or it is damaged.
        """
        path = self._file(name)
        try:
            return TypeAdapter(kind).validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            reason = "is damaged" if isinstance(error, ValidationError) else "cannot be read"
            raise DataError(
                f"{path}: {reason}, though the pass that writes it is done\n  remove {self.path} and start again"
            ) from error

    def _file(self, name: str) -> Path:
        return self.path / "found" / f"{name}.json"


@contextmanager
def own_directory(job: TokenizeJob, identity: str) -> Iterator[JobDirectory]:
    """The directory in ``scratch`` of a job that is done by this process and its workers.

    An interrupted job, or one whose worker or process was killed, finds its work there when it is started again. Any
    other end removes it. So does the next job with the same ``out``, of which only one can run at a time.

    Raises:
        WriteError: ``scratch`` cannot be written.
    """
    parent = (job.scratch or job.out).absolute()
    owner = hashlib.sha256(str(job.out.absolute()).encode()).hexdigest()[:8]
    directory = parent / f".tokenize-{owner}-{identity}"
    try:
        for other in parent.glob(f".tokenize-{owner}-*"):
            if other != directory:
                shutil.rmtree(other, ignore_errors=True)
    except OSError as error:
        raise write_error(directory, error) from error
    try:
        yield JobDirectory(directory)
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, WorkerDied):
            shutil.rmtree(directory, ignore_errors=True)
        raise
    shutil.rmtree(directory, ignore_errors=True)


def shared_directory(job: TokenizeJob, identity: str) -> JobDirectory:
    """The directory in ``scratch`` of a job that other machines do; it stays, and so does the result in it."""
    return JobDirectory((job.scratch or job.out).absolute() / f".stages-{identity}")
