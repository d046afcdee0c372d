"""One gloo rank of the chunked head and loss; started by test_linear_cross_entropy.py."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist

from salamandra_kernels import chunked_linear_cross_entropy


def main(rank: int, count: int, rendezvous: str, result: str, case: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=count)
    given = torch.load(case)
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        for sequence_parallel in (False, True):
            hidden = given["hidden"].to(dtype)
            if sequence_parallel:
                hidden = hidden.chunk(count, 0)[rank]
            hidden = hidden.clone().requires_grad_()
            weight = given["weight"].to(dtype).chunk(count, 0)[rank].clone().requires_grad_()
            loss = chunked_linear_cross_entropy(
                hidden,
                weight,
                given["labels"],
                token_weights=given["token_weights"],
                tp_group=dist.group.WORLD,
                sequence_parallel=sequence_parallel,
                z_loss=1e-2,
                chunk_tokens=3,
            )
            loss.backward(given["token_weights"])
            results.append((loss.detach(), hidden.grad, weight.grad))
    torch.save(results, result)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6])
