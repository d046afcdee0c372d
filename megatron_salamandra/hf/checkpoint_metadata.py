"""Loading the ``.metadata`` of a torch_dist checkpoint without running what is pickled in it.

The file is a pickle of torch's checkpoint metadata, to which Megatron-Core may have attached
classes of its own. Only torch's data classes are resolved; Megatron's become empty stand-ins, so
reading needs no Megatron-Core; everything else is refused.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import Metadata

from megatron_salamandra.run_directory import CheckpointError

_CHECKPOINT_MODULES = frozenset(
    f"torch.distributed.checkpoint.{name}" for name in ("filesystem", "metadata", "planner")
)
_ALLOWED_NAMES = frozenset(
    {("torch", "Size"), ("torch.serialization", "_get_layout"), ("collections", "OrderedDict")}
)


class _Opaque:
    """Stands in for an object this reader has no use for."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "megatron":
            return _Opaque
        if module == "pathlib" and name.endswith("Path"):
            return Path
        if module == "torch" or module in _CHECKPOINT_MODULES or (module, name) in _ALLOWED_NAMES:
            found = super().find_class(module, name)
            of_this_module = isinstance(found, type) and found.__module__ == module != "torch"
            if of_this_module or isinstance(found, torch.dtype) or (module, name) in _ALLOWED_NAMES:
                return found
        raise pickle.UnpicklingError(f"refusing to load {module}.{name}")


def load_metadata(path: Path) -> Metadata:
    """Read the metadata file of a torch_dist checkpoint.

    Raises:
        CheckpointError: missing, damaged, or not such a file.
    """
    try:
        with path.open("rb") as stream:
            metadata = _MetadataUnpickler(stream).load()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: missing; shards/ is not a torch_dist checkpoint\n  use another step directory"
        ) from error
    # A damaged pickle can raise almost anything.
    except Exception as error:
        raise CheckpointError(
            f"{path}: unreadable checkpoint metadata: {type(error).__name__}: {error}\n"
            "  the file is truncated or damaged; use another step directory"
        ) from error
    if not isinstance(metadata, Metadata) or metadata.storage_data is None:
        raise CheckpointError(f"{path}: not the metadata of a torch_dist checkpoint")
    return metadata
