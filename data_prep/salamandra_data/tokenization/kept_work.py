"""What the parts of a job leave for each other, and for the same command started again."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes, write_error
from salamandra_data.errors import DataError
from salamandra_data.execution.worker_pool import WorkerDied
from salamandra_data.readers import fingerprint
from salamandra_data.storage import Location
from salamandra_data.tokenization.job import TokenizeJob
from salamandra_data.tokenization.shard_plan import PREPARATION


def job_identity(job: TokenizeJob, files: Sequence[Location], tokenizer_sha256: str) -> str:
    """Of a job on its input as it is now: the same value means the same work, whoever does it."""
    absolute = [path.absolute() if isinstance(path, Path) else path for path in files]
    settings = replace(
        job,
        inputs=(),
        workers=1,
        tokenizer=job.tokenizer.absolute(),
        out=job.out.absolute(),
        scratch=(job.scratch or job.out).absolute(),
    )
    described = repr((PREPARATION, settings, fingerprint(absolute), tokenizer_sha256))
    return hashlib.sha256(described.encode()).hexdigest()[:16]


@contextmanager
def work_of_job(job: TokenizeJob, identity: str) -> Iterator[Path]:
    """The hidden directory in ``scratch`` for the intermediate work of a job in this process.

    An interrupted job, or one whose worker or process was killed, finds its work there when it is started again. Any
    other end removes it. So does the next job with the same ``out``, of which only one can run at a time.

    Raises:
        DataError: ``scratch`` cannot be written.
    """
    parent = (job.scratch or job.out).absolute()
    owner = hashlib.sha256(str(job.out.absolute()).encode()).hexdigest()[:8]
    directory = parent / f".tokenize-{owner}-{identity}"
    try:
        for other in parent.glob(f".tokenize-{owner}-*"):
            if other != directory:
                shutil.rmtree(other, ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(directory, error) from error
    try:
        yield directory
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, WorkerDied):
            shutil.rmtree(directory, ignore_errors=True)
        raise
    shutil.rmtree(directory, ignore_errors=True)


def keep(work: Path, name: str, value: object) -> None:
    """Leave a value under a name, whole or not at all."""
    path = _path(work, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, pickle.dumps(value))


def is_kept(work: Path, name: str) -> bool:
    """Whether there is a value of this name."""
    return _path(work, name).is_file()


def kept(work: Path, name: str) -> Any:
    """The value of a name.

    Raises:
        DataError: there is none, though what leaves it was done.
    """
    try:
        return pickle.loads(_path(work, name).read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"{_path(work, name)}: is missing, though the stage that writes it is done\n"
            f"  remove {work} and start again"
        ) from error


def _path(work: Path, name: str) -> Path:
    return work / "found" / name
