"""After training: export, comparison with our own model, and a few generated texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.foundation.launch_environment import local_environment
from megatron_salamandra.quickstart.errors import QuickstartError
from megatron_salamandra.quickstart.job import QuickstartJob
from megatron_salamandra.quickstart.stage_book import Stage
from salamandra_data.demo import load_demo_corpus

LOGIT_TOLERANCE = 1e-4
PROMPTS = {
    "ca": "Introduïu el nom de l'usuari i",
    "es": "Introduzca el nombre de usuario y",
    "en": "Enter the user name and",
}
_NEW_TOKENS = 40


def export_stages(job: QuickstartJob) -> list[Stage]:
    """Export to Hugging Face format, check the logits, generate in three languages."""
    return [
        Stage("export", "export to Hugging Face format", {}, [job.hf], lambda: _export(job)),
        Stage(
            "logits",
            "transformers against our model",
            {"tolerance": LOGIT_TOLERANCE},
            [logits_file(job)],
            lambda: _check_logits(job),
        ),
        Stage("texts", "generate", {"prompts": PROMPTS}, [texts_file(job)], lambda: _generate(job)),
    ]


def logits_file(job: QuickstartJob) -> Path:
    """Result of the comparison."""
    return job.out / "logits.json"


def texts_file(job: QuickstartJob) -> Path:
    """Generated texts by language."""
    return job.out / "texts.json"


def _export(job: QuickstartJob) -> None:
    from megatron_salamandra.hf import document_texts, export_checkpoint

    texts = document_texts(load_demo_corpus(job.corpus).files)
    report = export_checkpoint(job.run, job.hf, verification_texts=texts, force=True)
    print(f"{report.parameters:,} parameters of step {report.step:,} as {report.dtype} in {report.out}")
    print(f"tokenizer: {report.tokenizer_note}")
    if report.tokenizer is None:
        raise QuickstartError(f"{job.hf}: the tokenizer could not be converted: {report.tokenizer_note}")


def _check_logits(job: QuickstartJob) -> None:
    command = [sys.executable, "-m", "megatron_salamandra.quickstart.logit_check"]
    command += [str(job.run), str(job.hf), str(job.blend)]
    alone = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    offline = {"HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1")}
    environment = {name: value for name, value in local_environment(offline).items() if name not in alone}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise QuickstartError(
            f"the comparison of logits failed with code {done.returncode}; its messages are above"
        )
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{result['summary']} (text in {', '.join(result['languages'])})")
    if result["max_difference"] > LOGIT_TOLERANCE:
        raise QuickstartError(
            f"{job.hf}: the logits of transformers differ from ours by {result['max_difference']:.2e}, "
            f"more than {LOGIT_TOLERANCE:g}"
        )
    atomic_write_bytes(logits_file(job), (json.dumps(result, indent=1) + "\n").encode())


def _generate(job: QuickstartJob) -> None:
    import torch
    from transformers.utils import logging

    from megatron_salamandra.evaluation import generate_texts
    from megatron_salamandra.hf import load_export

    logging.disable_progress_bar()
    loaded = load_export(job.hf, device=torch.device("cpu"))
    texts = {}
    results = generate_texts(
        loaded, list(PROMPTS.values()), max_new_tokens=_NEW_TOKENS, temperature=0.7, top_p=0.9
    )
    for language, result in zip(PROMPTS, results, strict=True):
        texts[language] = result.prompt + result.completion
        print(f"{language}: {texts[language]}", flush=True)
    contents = json.dumps(texts, ensure_ascii=False, indent=1) + "\n"
    atomic_write_bytes(texts_file(job), contents.encode())
