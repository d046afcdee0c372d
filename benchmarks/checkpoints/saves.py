"""How long a save in the background holds training, against one that training waits for; and what proof costs a load.

Ranks of one machine on the CPU build a model, update it once, and save it in turns: waiting, and in the background. The
ratio is taken within each round, so that other work on the machine counts for both. With ``--updates`` the optimizer
updates while a save runs, which copies each page it changes (copy-on-write).

    python benchmarks/checkpoints/saves.py --ranks 2 --layers 20 --hidden 1280 --rounds 3 --out DIR --json FILE
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from megatron_salamandra.checkpoint import CheckpointWriter, SaveOutcome, check_together, load_checkpoint
from megatron_salamandra.config import CheckpointSection, RunConfig
from megatron_salamandra.foundation.world import free_port
from megatron_salamandra.model import build_model_chunks
from megatron_salamandra.optim import build_optimizer
from megatron_salamandra.parallel import start_process_grid
from megatron_salamandra.platform import select_platform
from megatron_salamandra.run_directory import CheckpointState, step_directory

RANK = "RANK"


def configuration(layers: int, hidden: int) -> RunConfig:
    """A model of about ``layers * 13 * hidden**2 + 2 * 32000 * hidden`` weights, in bf16 with fp32 state."""
    return RunConfig.model_validate(
        {
            "precision": "bf16",
            "model": {
                "name": "benchmark",
                "layers": layers,
                "hidden_size": hidden,
                "ffn_hidden_size": 3 * hidden,
                "attention_heads": hidden // 64,
                "query_groups": hidden // 64,
                "vocab_size": 32000,
            },
            "data": {"sequence_length": 64},
            "training": {"micro_batch_size": 1, "global_batch_size": 8, "steps": 4},
            "optimizer": {"lr": 1e-3, "min_lr": 1e-4, "warmup_steps": 1},
        }
    )


def timed(action: Callable[[], Any]) -> tuple[float, float]:
    """Wall clock and CPU time of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - cpu


def cpu_of_ended_processes() -> float:
    """CPU time of processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def rank_main(options: argparse.Namespace) -> None:
    """One rank: measure, and on rank 0 write the result."""
    config = configuration(options.layers, options.hidden)
    platform = select_platform("host")
    platform.start(0)
    with start_process_grid(config.parallel, 1, platform) as grid:
        chunks = build_model_chunks(config, grid, platform)
        optimizer = build_optimizer(config, chunks, platform)

        def update() -> None:
            for chunk in chunks:
                for parameter in chunk.parameters():
                    parameter.main_grad.fill_(1e-3)
            optimizer.step()

        update()
        tokenizer = options.out / "tokenizer.model"
        if dist.get_rank() == 0:
            tokenizer.write_bytes(b"none")
        dist.barrier()
        rounds = []
        step = 0
        policy = CheckpointSection(keep_last=1)
        root = options.out / "checkpoints"
        writers = {
            background: CheckpointWriter(
                root,
                policy.model_copy(update={"asynchronous": background}),
                config_yaml=config.to_yaml(),
                tokenizer=tokenizer,
                owner=None,
            )
            for background in (False, True)
        }

        def save(background: bool) -> tuple[SaveOutcome, float, float]:
            """Its outcome, and CPU time of this rank itself and of its processes."""
            nonlocal step
            step += 1
            writer = writers[background]
            dist.barrier()
            own, helped = time.process_time(), cpu_of_ended_processes()
            outcomes = writer.save(step, chunks, optimizer, CheckpointState({"step": step}, root))
            while not outcomes:
                own -= time.process_time()
                time.sleep(1.0)
                dist.barrier()  # ranks that train together come together, too
                own += time.process_time()
                outcomes = writer.poll(wait=False)
            assert outcomes[0].error is None, outcomes[0].error
            return outcomes[0], time.process_time() - own, cpu_of_ended_processes() - helped

        for background in (False, True):
            save(background)  # makes the plans
        for _ in range(options.rounds):
            waiting, waiting_own, waiting_helped = save(background=False)
            behind, own, helped = save(background=True)
            rounds.append(
                {
                    "waiting_seconds": waiting.stall_seconds,
                    "waiting_cpu_seconds": waiting_own + waiting_helped,
                    "stall_seconds": behind.stall_seconds,
                    "stall_cpu_seconds": own,
                    "background_cpu_seconds": helped,
                    "durable_seconds": behind.seconds,
                    "bytes": behind.bytes,
                    "ratio": behind.stall_seconds / waiting.stall_seconds,
                    "cpu_ratio": own / (waiting_own + waiting_helped),
                }
            )
        result: dict[str, Any] = {
            "parameters": sum(p.numel() for chunk in chunks for p in chunk.parameters()),
            "ranks": dist.get_world_size(),
            "rounds": rounds,
            "ratio": statistics.median(entry["ratio"] for entry in rounds),
            "cpu_ratio": statistics.median(entry["cpu_ratio"] for entry in rounds),
            "load_average": os.getloadavg(),
        }
        if options.updates:
            alone = [timed(update) for _ in range(3)]
            writers[True].save(step + 1, chunks, optimizer, CheckpointState({"step": step + 1}, root))
            beside = timed(update)
            writers[True].poll(wait=True)
            step += 1
            result["updates"], result["update_beside_a_save"] = alone, beside
        latest = step_directory(root, step)
        proofs = []
        for _ in range(options.loads):
            proof = timed(lambda: check_together(latest))
            load = timed(lambda: load_checkpoint(latest, config, chunks, optimizer, checked=True))
            proofs.append({"proof": proof, "load": load, "share": proof[0] / (proof[0] + load[0])})
        if proofs:
            result["proofs"] = proofs
            result["share_of_proof"] = statistics.median(entry["share"] for entry in proofs)
        if dist.get_rank() == 0:
            print(json.dumps(result, indent=1))
            if options.json:
                options.json.write_text(json.dumps(result, indent=1))


def main() -> None:
    """Start the ranks, or be one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--loads", type=int, default=3, help="a load needs 18 bytes per weight more on each rank"
    )
    parser.add_argument("--updates", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if RANK in os.environ:
        rank_main(options)
        return
    with tempfile.TemporaryDirectory(dir=options.out) as directory:
        words = [*sys.argv[1:], "--out", directory]
        world = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "WORLD_SIZE": str(options.ranks),
        }
        ranks = [
            subprocess.Popen(
                [sys.executable, __file__, *words],
                env={**os.environ, **world, RANK: str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            )
            for rank in range(options.ranks)
        ]
        sys.exit(max(rank.wait() for rank in ranks))


if __name__ == "__main__":
    main()
