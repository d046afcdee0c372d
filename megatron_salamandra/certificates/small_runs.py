"""A small model, data made for it, and runs of it on this machine's ranks."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.run_directory import MetricsLog, RunDirectory
from salamandra_data.blend_plan import LanguageFactors, build_plan
from salamandra_data.shards import ShardWriter, TokenizerIdentity

VOCAB_SIZE = 256
_EOD = 2
_TOKENS = 20_000
_RANKS = 4
_OVERRIDES = (
    f"model.vocab_size={VOCAB_SIZE}",
    "model.hidden_size=64",
    "model.ffn_hidden_size=176",
    "model.attention_heads=4",
    "model.query_groups=2",
    "data.sequence_length=64",
    "training.micro_batch_size=1",
    "training.global_batch_size=4",
    "validation.at_end=false",
    "checkpoint.every_steps=null",
    "logging.tensorboard=false",
)


class RunFailed(UserError):
    """A run of a certificate did not end as it should."""


def small_run(blend: Path, run: Path, *more: str) -> list[str]:
    """Configuration and overrides of a run of the small model, in fp32."""
    return ["tiny", *_OVERRIDES, f"data.blend={blend}", f"run_dir={run}", *more]


def make_blend(directory: Path) -> Path:
    """Write shards of tokens that can be learnt, and a blend of them; the same every time. Replaces ``directory``."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    tokenizer = directory / "tokenizer.model"
    tokenizer.write_bytes(b"stands for a tokenizer: nothing is decoded\n")
    identity = TokenizerIdentity(hashlib.sha256(tokenizer.read_bytes()).hexdigest(), VOCAB_SIZE, _EOD)
    generator = np.random.default_rng(7)
    for split, tokens in (("train", _TOKENS), ("validation", _TOKENS // 10)):
        prefix = directory / f"en-{split}-00000"
        with ShardWriter(prefix, language="en", split=split, tokenizer=identity) as writer:
            while writer.tokens < tokens:
                # A walk whose next number mostly follows from the last one.
                steps = generator.choice([3, 5, 7], size=int(generator.integers(20, 200)), p=[0.8, 0.1, 0.1])
                ids = 3 + np.cumsum(steps) % (VOCAB_SIZE - 3)
                ids[-1] = _EOD
                writer.add_document(ids, utf8_bytes=3 * len(ids))
    plan = build_plan([directory], LanguageFactors({}), tokenizer=tokenizer)
    plan.save(directory / "blend.yaml")
    return directory / "blend.yaml"


def available_ranks() -> int:
    """GPUs of this machine; without any, two to four ranks on its CPUs."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return max(2, min(_RANKS, len(os.sched_getaffinity(0))))


def train(arguments: Sequence[str], ranks: int, expected: int = 0) -> None:
    """Train on ``ranks`` of this machine.

    Raises:
        RunFailed: it ended with another code than ``expected``; the end of its output is told.
    """
    command = [sys.executable, "-m", "megatron_salamandra.cli", "train", *arguments, "--ranks", str(ranks)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    if done.returncode != expected:
        end = "\n".join(done.stdout.strip().splitlines()[-8:])
        raise RunFailed(f"training ended with code {done.returncode}, expected {expected}\n{end}")


def losses(run: Path) -> list[tuple[int, float]]:
    """Step and loss of every line that the run wrote."""
    return [(record.step, record.loss) for record in MetricsLog(RunDirectory(run).metrics).read()]
