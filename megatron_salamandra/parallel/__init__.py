"""Process groups, the layout of ranks, and weights that do not depend on it.

Public names: :class:`ProcessGrid` (who this rank is), :func:`start_process_grid`,
:func:`initialize_parameters`.
"""

from __future__ import annotations

from megatron_salamandra.parallel.initialization import initialize_parameters
from megatron_salamandra.parallel.process_grid import ProcessGrid, start_process_grid

__all__ = ["ProcessGrid", "initialize_parameters", "start_process_grid"]
