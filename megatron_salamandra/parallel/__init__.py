"""Process groups, the layout of ranks, and weights that do not depend on it.

Public names: :class:`ProcessGrid` (who this rank is), :func:`start_process_grid`,
:func:`initialize_parameters`, :func:`named_global_parameters`, :func:`bit_sums`, :func:`collectives_begun`,
:class:`CollectiveTimeouts`, :func:`is_timeout`.
"""

from __future__ import annotations

from megatron_salamandra.parallel.bit_sum import bit_sums
from megatron_salamandra.parallel.collective_timeouts import CollectiveTimeouts, is_timeout
from megatron_salamandra.parallel.initialization import initialize_parameters, named_global_parameters
from megatron_salamandra.parallel.process_grid import ProcessGrid, collectives_begun, start_process_grid

__all__ = [
    "CollectiveTimeouts",
    "ProcessGrid",
    "bit_sums",
    "collectives_begun",
    "initialize_parameters",
    "is_timeout",
    "named_global_parameters",
    "start_process_grid",
]
