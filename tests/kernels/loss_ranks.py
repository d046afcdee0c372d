"""One gloo rank of the sharded-vocabulary loss; started by test_vocab_cross_entropy.py."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist

from salamandra_kernels import vocab_parallel_cross_entropy


def main(rank: int, count: int, rendezvous: str, result: str, case: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=count)
    given = torch.load(case)
    group = dist.group.WORLD
    assert group is not None
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        leaf = given["logits"].to(dtype).chunk(count, -1)[rank].contiguous().requires_grad_()
        loss = vocab_parallel_cross_entropy(leaf * 1, given["labels"], tp_group=group, z_loss=given["z_loss"])
        loss.backward(given["upstream"])
        results.append((loss.detach(), leaf.grad))
    torch.save(results, result)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6])
