"""What of an earlier start of the same run still holds: files may have been mended, moved away or changed since."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from salamandra_data.curation.report import PAGE, REPORT
from salamandra_data.curation.work import FILTER, FileCount, Work
from salamandra_data.errors import DataError
from salamandra_data.readers import fingerprint


def note_input(work: Work, number: int) -> None:
    """Keep, before a file is read, what it is known by."""
    atomic_write_bytes(work.fingerprint_file(number), fingerprint([work.files[number]]).encode())


def forget_stale_tasks(work: Work) -> None:
    """Have those files read again that were read before they changed, or with malformed lines that now end a run.

    Raises:
        DataError: all files were read already, and later stages rest on what they held.
    """
    stale = list(_stale(work))
    if stale and not any(not work.filter_mark(number).exists() for number in range(len(work.files))):
        number, why = stale[0]
        raise DataError(
            f"{work.settings.out}: holds a run on other input: {work.files[number]} {why}\n"
            "  choose another --out, or remove this one"
        )
    for number, _ in stale:
        work.filter_mark(number).unlink()


def check_output(work: Work) -> None:
    """Look whether all that a complete run wrote is there.

    Raises:
        DataError: a file is missing.
    """
    out = work.settings.out
    for path in (out / REPORT, out / PAGE, *map(work.output, range(len(work.files)))):
        if not path.is_file():
            raise DataError(
                f"{path}: is missing, though the run that wrote it is complete\n"
                f"  put it back, or remove {out} and run the same command again"
            )


def _stale(work: Work) -> Iterator[tuple[int, str]]:
    for number, path in enumerate(work.files):
        if not work.filter_mark(number).exists():
            continue
        if work.fingerprint_file(number).read_text() != fingerprint([path]):
            yield number, "has changed since it was read"
        elif not work.settings.skip_malformed:
            count: FileCount = pickle.loads(work.count_file(FILTER, number).read_bytes())
            if count.removals["malformed"].counts:
                yield number, "has malformed lines, which were passed over"
