"""``salamandra data curate``: raw documents to those worth training on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.cli.data._long_work import tell_submission, until_interrupted
from megatron_salamandra.cli.data._machines import checked_settings
from megatron_salamandra.foundation.exit_codes import EXIT_DONE

if TYPE_CHECKING:
    from salamandra_data.curation import CurateOptions


def _options() -> type[CurateOptions]:
    from salamandra_data.curation import CurateOptions

    return CurateOptions


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    add_command(
        commands,
        "curate",
        _options,
        _run,
        text="filter, score and deduplicate documents, and show what was removed",
        description="Reads documents, removes those in another language, of low quality, contaminated or repeated, "
        "masks personal data, and writes the others to --out/documents, one .jsonl.zst per input file. Every removal "
        "is counted by reason and language (curation.json, curation.html) and a sample is kept (removed/). Each input "
        "file is a task: cut large inputs into files. Run again after an interruption, it goes on.",
    )


def _run(options: CurateOptions) -> int:
    from salamandra_data.curation import curate
    from salamandra_data.errors import DataError

    def work() -> int:
        outcome, result = curate(options.curation, checked_settings(options.machines))
        tell_submission(outcome)
        if result is None:
            return EXIT_DONE
        print(result.table())
        if tasks := result.tasks_table():
            print(f"\n{tasks}\n")
        print(f"what went and why: {result.page}")
        if reason := result.nothing_readable():
            raise DataError(reason)
        return EXIT_DONE

    return until_interrupted(work, "finished tasks")
