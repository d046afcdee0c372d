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
from transformers.utils import logging

from megatron_salamandra.config import load_run_config
from megatron_salamandra.data import validation_sets
from megatron_salamandra.hf import check_export, megatron_logits
from megatron_salamandra.run_directory import RunDirectory
from salamandra_data.blend_plan import BlendPlan

_WINDOWS = 4


def main(arguments: list[str]) -> int:
    """Compare on the first validation windows of a few languages."""
    logging.disable_progress_bar()
    run, export, blend = map(Path, arguments)
    config = load_run_config(str(RunDirectory(run).config), [])
    sets = validation_sets(BlendPlan.load(blend), config.data.sequence_length, 1)
    chosen = sets[:: max(len(sets) // _WINDOWS, 1)][:_WINDOWS]
    tokens = torch.cat([next(iter(one.micro_batches(1, 0, 1))).tokens for one in chosen])
    parity = check_export(export, tokens, megatron_logits(run, tokens))
    print(
        json.dumps(
            {**asdict(parity), "languages": [one.language for one in chosen], "summary": parity.summary()}
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
