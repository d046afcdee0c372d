"""The whole way, stage after stage."""

from __future__ import annotations

import json
from collections.abc import Sequence

from megatron_salamandra.config import load_run_config
from megatron_salamandra.foundation.atomic_files import atomic_write_text
from megatron_salamandra.foundation.json_files import write_json
from megatron_salamandra.foundation.packages import check_installed
from megatron_salamandra.quickstart.closing_plot import closing_plot
from megatron_salamandra.quickstart.closing_table import closing_table, read_results, results_as_json
from megatron_salamandra.quickstart.errors import QuickstartError
from megatron_salamandra.quickstart.export import export_stages, logits_file, texts_file
from megatron_salamandra.quickstart.job import CONFIG, QuickstartJob
from megatron_salamandra.quickstart.preparation import preparation_stages
from megatron_salamandra.quickstart.rank_layout import choose_ranks
from megatron_salamandra.quickstart.stage_book import BOOK_NAME, Stage, StageBook, holds_a_book, remove
from megatron_salamandra.quickstart.training import run_overrides, training_stages
from megatron_salamandra.run_directory import RunDirectory


def run_quickstart(job: QuickstartJob) -> None:
    """Run every stage that is not done, print the closing table and write ``report.json``.

    Raises:
        ConfigError: overrides or layout make no valid run; nothing was done then.
        DataError, QuickstartError, ...: a stage failed; the stages before are kept.
    """
    _need_packages()
    ranks = choose_ranks(job.ranks, _usable_gpus(job))
    config = load_run_config(CONFIG, run_overrides(job, ranks))
    config.validate_for_world(ranks)
    refuse_foreign_directory(job)
    job.out.mkdir(parents=True, exist_ok=True)
    stages = [
        *preparation_stages(job, config.total_steps * config.tokens_per_step),
        *training_stages(job, ranks, config),
        *export_stages(job),
    ]
    if job.fresh:
        remove_what_stages_make(job, stages)
    book = StageBook(job.out, len(stages))
    for stage in stages:
        book.run(stage)
    _close(job, book)


def refuse_foreign_directory(job: QuickstartJob) -> None:
    """Stages delete their outputs by name, so a directory must be new or one that a quick start has made.

    Raises:
        QuickstartError: ``job.out`` is no directory, or holds more than downloads and no ``stages.json`` of ours.
    """
    if not job.out.exists():
        return
    if not job.out.is_dir():
        raise QuickstartError(f"--out {job.out}: not a directory\n  remedy: --out with a new directory")
    foreign = sorted(entry.name for entry in job.out.iterdir() if entry != job.downloads)
    if not foreign or holds_a_book(job.out):
        return
    shown = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
    raise QuickstartError(
        f"--out {job.out}: holds {shown}, and no {BOOK_NAME} of a quick start; its stages would delete directories "
        f"of their names there, so nothing was touched\n"
        f"  remedy: --out with a new or empty directory (it may hold {job.downloads.name}/)"
    )


def remove_what_stages_make(job: QuickstartJob, stages: Sequence[Stage]) -> None:
    """Delete outputs of stages, report, plot and book; all else stays. The book goes last: it says the rest is ours."""
    for path in [
        *(path for stage in stages for path in stage.outputs),
        job.report,
        job.plot,
        job.out / BOOK_NAME,
    ]:
        remove(path)


def _need_packages() -> None:
    """Missing packages of the last stages are to be told before the first."""
    needed = ("transformers", "tokenizers", "safetensors", "matplotlib")
    check_installed(*needed, extra="data,hf", purpose="the quick start")


def _usable_gpus(job: QuickstartJob) -> int:
    """CUDA devices that training will use: none if it is told to stay on the host."""
    if load_run_config(CONFIG, job.overrides).platform == "host":
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _close(job: QuickstartJob, book: StageBook) -> None:
    results = read_results(job.run)
    texts = json.loads(texts_file(job).read_text(encoding="utf-8"))
    logits = json.loads(logits_file(job).read_text(encoding="utf-8"))
    report = {
        "languages": results_as_json(results),
        "logits": logits,
        "texts": texts,
        "seconds": book.seconds(),
    }
    write_json(job.report, report)
    atomic_write_text(job.plot, closing_plot(results))
    print(f"\n{closing_table(results)}\n")
    print(f"transformers and our model: {logits['summary']}")
    for language, text in texts.items():
        print(f"  {language}: {text!r}")
    print(f"\nall stages together, when they ran: {sum(book.seconds().values()) / 60:.1f} min")
    print(f"  the run         {job.run}   (tensorboard --logdir {job.run}/tensorboard)")
    print(
        f"  its report      {RunDirectory(job.run).report}   (one page for a browser; salamandra report writes it anew)"
    )
    print(f"  the model       {job.hf}   (salamandra generate --hf {job.hf} --prompt 'Bon dia')")
    print(f"  this table      {job.report}   (as a plot: {job.plot})")
