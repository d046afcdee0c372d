"""The machine a step runs on: one GPU, the links of its node, the network between nodes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """Rates as their makers state them; what of them is reached is in :mod:`rates`.

    Attributes:
        bf16_teraflops: dense peak of the matrix units, TFLOP/s.
        fp8_teraflops: the same in fp8; None where there is none.
        memory_gib: of one GPU.
        memory_gb_s: bandwidth of that memory, GB/s.
        gpus_per_node: that share the links below.
        link_gb_s: NVLink of one GPU in one direction, GB/s.
        adapters: network adapters of a node that its GPUs use.
        adapter_gbit_s: one of them, Gbit/s.
        power_share: power limit over the rated power; clocks fall below 1.
        watts: rated power of one GPU.
        gpu_hour_price: price of a GPU-hour, as text with its currency is in ``currency``; None if not public.
        host_memory_gib: of a node.
    """

    gpu: str
    bf16_teraflops: float
    fp8_teraflops: float | None
    memory_gib: float
    memory_gb_s: float
    gpus_per_node: int
    link_gb_s: float
    adapters: int
    adapter_gbit_s: float
    power_share: float = 1.0
    watts: float | None = None
    gpu_hour_price: float | None = None
    currency: str | None = None
    host_memory_gib: float | None = None

    def group_gb_s(self, ranks_of_node: int, nodes: int, link_share: float, network_share: float) -> float:
        """Rate at which each rank of a group passes data round its ring, GB/s.

        A ring over nodes enters and leaves each of them once, through the adapters of the group's GPUs there.

        Args:
            ranks_of_node: ranks of the group on one node.
            nodes: nodes that the group spans.
            link_share: of the stated rate that collectives reach inside a node.
            network_share: the same between nodes.
        """
        inside = self.link_gb_s * link_share
        if nodes == 1:
            return inside
        share_of_adapters = self.adapters * ranks_of_node / self.gpus_per_node
        return min(inside, share_of_adapters * self.adapter_gbit_s / 8 * network_share)
