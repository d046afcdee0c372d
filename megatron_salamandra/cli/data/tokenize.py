"""``salamandra data tokenize``: documents to shuffled, indexed shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.cli.data._long_work import tell_submission, until_interrupted
from megatron_salamandra.cli.data._machines import checked_settings
from megatron_salamandra.foundation.exit_codes import EXIT_DONE

if TYPE_CHECKING:
    from salamandra_data.tokenization import TokenizeOptions, TokenizeResult


def _options() -> type[TokenizeOptions]:
    from salamandra_data.tokenization import TokenizeOptions

    return TokenizeOptions


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    add_command(
        commands,
        "tokenize",
        _options,
        _run,
        text="turn documents into globally shuffled shards with manifests",
        description="Reads documents, shuffles them within each language and writes shards LANGUAGE-SPLIT-NNNNN "
        "(.bin and .idx as Megatron reads them, .json with counts and checksums) and a copy of the tokenizer into "
        "--out. The same input and seed give the same bytes, whatever the number of workers. Run again after an "
        "interruption, it keeps the shards that are done.",
    )


def _run(options: TokenizeOptions) -> int:
    from salamandra_data.execution import Processes, Tasks
    from salamandra_data.tokenization import tokenize_with

    job, machines = options.job, options.machines

    def work() -> int:
        here = machines.executor == "local"
        outcome, result = tokenize_with(
            job,
            Processes(machines.workers or 1)
            if here
            else Tasks(checked_settings(machines), machines.stage_tasks),
        )
        tell_submission(outcome)
        return EXIT_DONE if result is None else _report(result)

    return until_interrupted(work, "finished shards")


def _report(result: TokenizeResult) -> int:
    print(result.table())
    encoder = result.encoder
    print(f"encoder: {encoder.name} {encoder.version}")
    if result.documents_checked:
        print(f"documents compared with SentencePiece: {result.documents_checked:,}, no difference")
    for reason in encoder.passed_over:
        print(f"a faster encoder was passed over: {reason}")
    if result.shards_already_done:
        print(f"shards kept from an earlier run: {result.shards_already_done:,}")
    if result.renamed:
        names = ", ".join(f"{name} is {language}" for name, language in result.renamed.items())
        print(f"names of languages that mean one of the corpus: {names}")
    for language, count in sorted(result.empty_documents.items()):
        print(f"empty documents passed over: {count:,} in {language}")
    if result.skipped_report is not None:
        print(f"malformed lines passed over: {result.malformed_lines:,}, listed in {result.skipped_report}")
    return EXIT_DONE
