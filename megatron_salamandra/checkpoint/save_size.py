"""How much a rank has to write in a save, before anything is written."""

from __future__ import annotations

from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer

from megatron_salamandra.checkpoint.contents import METADATA, sharded_state
from megatron_salamandra.checkpoint.save_plan import Planner


def bytes_saved_by_rank(chunks: list[DistributedDataParallel], optimizer: MegatronOptimizer) -> int:
    """Size of the tensors that this rank writes in a save; collective.

    A save from a device holds so many bytes of the host's memory until they are written.
    """
    state = sharded_state(chunks, optimizer, loading=False)
    return Planner().bytes_of_rank({**state, "content_metadata": dict(METADATA)})
