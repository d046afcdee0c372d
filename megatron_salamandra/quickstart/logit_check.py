"""One rank of our own model beside transformers on the export: ``python -m ...logit_check RUN HF BLEND``.

A process of its own, because running Megatron-Core's code on the CPU replaces parts of ``torch.cuda``. Always on
the CPU in fp32, so that both sides do the same arithmetic. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from transformers.utils import logging

from megatron_salamandra.checkpoint import load_checkpoint, resolve_checkpoint
from megatron_salamandra.config import RunConfig, load_run_config
from megatron_salamandra.data import validation_sets
from megatron_salamandra.hf import check_export
from megatron_salamandra.model import build_model_chunks
from megatron_salamandra.parallel import start_process_grid
from megatron_salamandra.platform import select_platform
from salamandra_data.blend_plan import BlendPlan

_WINDOWS = 4
_ONE_RANK = [
    "platform=host",
    "precision=fp32",
    "parallel.tensor=1",
    "parallel.pipeline=1",
    "parallel.virtual_pipeline=null",
    "parallel.pipeline_layout=null",
    "parallel.sequence=false",
]


def our_logits(config: RunConfig, checkpoint: Path, tokens: Tensor) -> Tensor:
    """Logits [batch, sequence, V] of ``tokens`` [batch, sequence] by our model on this process alone."""
    platform = select_platform(config.platform)
    platform.start(0)
    try:
        with start_process_grid(config.parallel, config.training.seed, platform) as grid:
            chunks = build_model_chunks(config, grid, platform)
            load_checkpoint(checkpoint, config, chunks, None)
            positions = torch.arange(tokens.shape[1]).expand_as(tokens).contiguous()
            with torch.no_grad():
                logits: Tensor = chunks[0].eval()(tokens, positions, None)
            return logits.clone()
    finally:
        platform.stop()


def main(arguments: list[str]) -> int:
    """Compare on the first validation windows of a few languages."""
    logging.disable_progress_bar()
    run, export, blend = map(Path, arguments)
    config = load_run_config(str(run / "config.yaml"), _ONE_RANK)
    sets = validation_sets(BlendPlan.load(blend), config.model.sequence_length, 1)
    chosen = sets[:: max(len(sets) // _WINDOWS, 1)][:_WINDOWS]
    tokens = torch.cat([next(iter(one.micro_batches(1, 0, 1))).tokens for one in chosen])
    reference = our_logits(config, resolve_checkpoint(run), tokens)
    parity = check_export(export, tokens, reference)
    print(
        json.dumps(
            {**asdict(parity), "languages": [one.language for one in chosen], "summary": parity.summary()}
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
