"""``salamandra explain``: which documents made up a step of a run. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.exit_codes import EXIT_FAILURE
from megatron_salamandra.foundation.options import Option, OptionError, Options
from megatron_salamandra.foundation.signals import SignalWatch

_TEXT_TOKENS = 64


class ExplainOptions(Options):
    """Options of ``salamandra explain``."""

    run: Annotated[Path, Option("run directory", metavar="RUN_DIR", positional=True)]
    step: Annotated[int | None, Option("step, counted from 1 as in metrics.jsonl")] = None
    incident: Annotated[
        int | None, Option("the step of incident N instead, as RUN/incidents has it", metavar="N")
    ] = None
    replay: Annotated[
        bool, Option("train up to the incident's step again, and compare its loss and gradient norm")
    ] = False
    ranks: Annotated[
        int | None, Option("processes of the replay; default: as many as the run had", metavar="N")
    ] = None
    sample: Annotated[
        int | None, Option("only sample K of the step, counted from 0 in its global batch", metavar="K")
    ] = None
    text: Annotated[
        int | None, Option("print the first C characters of what was taken of each document", metavar="C")
    ] = None
    blend: Annotated[
        Path | None, Option("the run's blend plan, where the data is now if it was moved", metavar="FILE")
    ] = None


def register(subparsers: Subparsers) -> None:
    """Add ``explain`` to the command line."""
    add_command(
        subparsers,
        "explain",
        lambda: ExplainOptions,
        _run,
        text="list the documents that a step of a run was trained on",
        description="Computes, from config.yaml, blend.lock.yaml and, for a run that goes on from another one, "
        "ordinals.lock.yaml of a run directory, the samples of a step, and reads the shards' indexes for the "
        "documents in them. Per sample: number, language, epoch, window; per document: shard, number, tokens taken. "
        "`salamandra data inspect SHARD --document N` prints a document.",
    )


def _run(options: ExplainOptions) -> int:
    if (options.step is None) == (options.incident is None):
        raise OptionError("explain needs --step or --incident, and not both")
    if options.replay and options.incident is None:
        raise OptionError("--replay repeats an incident: name it with --incident")
    if options.ranks is not None and not options.replay:
        raise OptionError("--ranks is for --replay")
    if options.incident is not None:
        return _explain_incident(options, options.incident)
    return _explain_step(options)


def _explain_incident(options: ExplainOptions, number: int) -> int:
    from megatron_salamandra.run_directory import RunDirectory, read_incident

    incident = read_incident(RunDirectory(options.run).incidents, number)
    print(f"incident {number}: step {incident.step}, {incident.kind}, {incident.action}: {incident.reason}")
    print(f"  loss {incident.loss!r}, gradient norm {incident.grad_norm!r}")
    if options.replay:
        return _replay(options, number)
    for sample in incident.contents:
        print(
            f"sample {sample['sample']}: {sample['source']}, epoch {sample['epoch']}, window {sample['window']}"
        )
        for part in sample["documents"]:
            last = part["first_token"] + part["tokens"]
            print(
                f"  {Path(part['shard']).name} document {part['document']}: tokens {part['first_token']} to {last}"
            )
    return 0


def _replay(options: ExplainOptions, number: int) -> int:
    from megatron_salamandra.replay import replay_incident

    with SignalWatch(leave_at_once=True) as signals:
        found = replay_incident(options.run, number, options.ranks, signals)
    if found.loss is None:
        print(f"the replay did not come to step {found.incident.step}; see {found.directory}")
        return EXIT_FAILURE
    print(f"replayed: loss {found.loss!r}, gradient norm {found.grad_norm!r}")
    if found.reproduced:
        print("the same to the bit: the text, the recipe or the code did it, not a machine")
        return 0
    print(
        "not the same: if layout and software are those of the run, a machine computed wrongly\n"
        f"  see the hosts of the run in {options.run / 'environment.json'} and its events"
    )
    return EXIT_FAILURE


def _explain_step(options: ExplainOptions) -> int:
    from megatron_salamandra.data import RunRecord
    from salamandra_data.errors import DataError
    from salamandra_data.tokenization import cached_encoder

    assert options.step is not None
    record = RunRecord(options.run, options.blend)
    samples = record.step_samples(options.step)
    if options.sample is not None:
        if not 0 <= options.sample < len(samples):
            raise DataError(f"--sample {options.sample}: a step has samples 0 to {len(samples) - 1}")
        samples = samples[options.sample : options.sample + 1]
    for sample in samples:
        contents = record.contents(options.step, sample)
        place = contents.location
        print(
            f"sample {sample}: {place.source}, epoch {place.epoch}, window {place.window} "
            f"(ordinal {place.ordinal} of its {'language' if place.source == place.language else 'source'})"
        )
        for part in contents.documents:
            last = part.first_token + part.tokens
            print(
                f"  {part.shard.name} document {part.document}: "
                f"tokens {part.first_token} to {last} of {part.document_tokens}"
            )
            if options.text:
                ids = record.ids(
                    part, max(_TEXT_TOKENS, options.text)
                )  # a token is a character or more, mostly
                text = cached_encoder(record.plans[0].tokenizer.path).decode(ids)
                print(f"    {text[: options.text]!r}")
    return 0
