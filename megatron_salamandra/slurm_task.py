"""What srun starts for each task of a command's job: ``python -m megatron_salamandra.slurm_task COMMAND ...``.

The command is one of ``salamandra``, or ``-m MODULE ...`` of Python. As for a rank of training there is no shell
between SLURM and the command, and the supervisor is told how it ended.
"""

from __future__ import annotations

import io
import os
import runpy
import signal
import sys
import traceback
from collections import deque
from collections.abc import Sequence
from types import FrameType

from megatron_salamandra.cluster import report_end
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_FAILURE, EXIT_STOPPED
from megatron_salamandra.slurm_rank import join_world

_LINES_KEPT = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, 0 for "stopped with everything saved" (75)."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Commands know the signal that every system sends; before a time limit it is another one that comes.
    before = signal.signal(signal.SIGUSR1, _end_as_terminated)
    said = _Heard(sys.stderr)
    sys.stderr = said
    try:
        # A command with one process for each node and task is a world of ranks; one alone is none.
        if os.environ.get("SLURM_NTASKS", "1") != "1":
            join_world(os.environ)
        code = _run(words)
    except UserError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    finally:
        sys.stderr = said.stream
        signal.signal(signal.SIGUSR1, before)
    report_end(int(os.environ.get("SLURM_PROCID", "0")), code, said.last())
    return EXIT_DONE if code == EXIT_STOPPED else code


def _run(words: Sequence[str]) -> int:
    try:
        if words[:1] == ["-m"] and len(words) > 1:
            sys.argv = list(words[1:])
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            return EXIT_DONE
        from megatron_salamandra import cli

        return cli.main(words)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return EXIT_FAILURE
        return end.code or EXIT_DONE
    except Exception:
        traceback.print_exc()
        return EXIT_FAILURE


def _end_as_terminated(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class _Heard(io.TextIOBase):
    """Passes on what is written, and keeps the last lines for the supervisor."""

    def __init__(self, stream: object) -> None:
        self.stream = stream
        self._lines: deque[str] = deque([""], maxlen=_LINES_KEPT)

    def write(self, text: str) -> int:
        """As of any stream."""
        first, *others = text.split("\n")
        self._lines[-1] += first
        self._lines.extend(others)
        return int(self.stream.write(text))  # type: ignore[attr-defined]

    def flush(self) -> None:
        """As of any stream."""
        self.stream.flush()  # type: ignore[attr-defined]

    def isatty(self) -> bool:
        """As of the stream behind."""
        return bool(self.stream.isatty())  # type: ignore[attr-defined]

    def last(self) -> str:
        """The last lines."""
        return "\n".join(self._lines).strip()


if __name__ == "__main__":
    sys.exit(main())
