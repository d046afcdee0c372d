"""From nothing to a blend plan: corpus, tokenizer, shards, blend."""

from __future__ import annotations

import os
from typing import Any

from megatron_salamandra.config import presets_directory
from megatron_salamandra.quickstart.job import QuickstartJob
from megatron_salamandra.quickstart.stage_book import Stage
from salamandra_data.blend_plan import LanguageFactors, blend_table, blend_warnings, build_plan
from salamandra_data.demo import WHEELS, build_demo_corpus, load_demo_corpus
from salamandra_data.option_groups import InputOptions
from salamandra_data.text_table import text_table
from salamandra_data.tokenization import TokenizeJob, tokenize_documents
from salamandra_data.tokenizer import TokenizerTraining, train_tokenizer

FACTORS = "data/salamandra-pretraining.yaml"
_WORKERS = 2


def preparation_stages(job: QuickstartJob, budget_tokens: int) -> list[Stage]:
    """The stages up to the blend plan.

    Args:
        budget_tokens: length of the run, for the table of the blend.
    """
    corpus = {"source": job.source, "wheels": [wheel.requirement for wheel in WHEELS]}
    tokens: dict[str, Any] = {"validation_fraction": job.validation_fraction}
    factors = (presets_directory() / FACTORS).read_text(encoding="utf-8")
    return [
        Stage("corpus", "demo corpus", corpus, [job.corpus], lambda: _corpus(job)),
        Stage(
            "tokenizer",
            "train the tokenizer",
            {"vocab_size": job.vocab_size},
            [job.tokenizer],
            lambda: _tokenizer(job),
        ),
        Stage("shards", "tokenize", tokens, [job.shards], lambda: _shards(job)),
        Stage(
            "blend",
            "blend the languages",
            {"factors": factors},
            [job.blend],
            lambda: _blend(job, budget_tokens),
        ),
    ]


def _corpus(job: QuickstartJob) -> None:
    corpus = build_demo_corpus(job.corpus, source=job.source, cache=job.downloads)
    rows = [
        (package["name"], package["version"], package["licence"])
        for package in corpus.packages
        if corpus.source == "pip"
    ]
    if rows:
        print(text_table(("package", "version", "licence"), rows))
    missing = f"; none in {', '.join(corpus.missing_languages)}" if corpus.missing_languages else ""
    print(
        f"{corpus.utf8_bytes / 1e6:.2f} MB of text in {corpus.documents:,} documents, "
        f"{len(corpus.languages)} sources (languages and code){missing}"
    )


def _tokenizer(job: QuickstartJob) -> None:
    trained = train_tokenizer(
        TokenizerTraining(inputs=load_demo_corpus(job.corpus).files, vocab_size=job.vocab_size), job.tokenizer
    )
    print(trained.table())


def _shards(job: QuickstartJob) -> None:
    result = tokenize_documents(
        TokenizeJob(
            documents=InputOptions(input=tuple(map(str, load_demo_corpus(job.corpus).files))),
            tokenizer=job.tokenizer_model,
            out=job.shards,
            validation_fraction=job.validation_fraction,
        ),
        workers=min(_WORKERS, len(os.sched_getaffinity(0))),
    )
    print(result.table())


def _blend(job: QuickstartJob, budget_tokens: int) -> None:
    factors = LanguageFactors.load(presets_directory() / FACTORS)
    plan = build_plan([job.shards], factors)
    print(blend_table(plan, budget_tokens))
    for warning in blend_warnings(plan, factors, budget_tokens=budget_tokens):
        print(f"note: {warning}")
    plan.save(job.blend)
