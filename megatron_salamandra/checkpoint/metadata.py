"""Reading what torch and Megatron-Core keep beside tensors, such that a file can never run anything.

Both write pickles: ``.metadata`` (which tensor lies where) and objects inside the files of tensors. A pickle is a
program. Here ``.metadata`` is read by an unpickler that knows the few classes it may name and refuses all others, and
everything else by torch's own restricted loader (``weights_only``). No Megatron-Core.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import Metadata

from megatron_salamandra.run_directory import CheckpointError

_TORCH = "torch.distributed.checkpoint"
_ALLOWED = {
    "collections": {"OrderedDict"},
    "torch": {"Size"},  # and dtypes
    "torch.serialization": {"_get_layout"},
    f"{_TORCH}.filesystem": {"_StorageInfo"},
    f"{_TORCH}.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    f"{_TORCH}.planner": {"BytesIOWriteData", "SavePlan", "TensorWriteData", "WriteItem", "WriteItemType"},
}
"""Names that a ``.metadata`` of torch 2.8 to 2.13 uses."""
_OPAQUE = {
    ("megatron.core.dist_checkpointing.strategies.torch", name) for name in ("MCoreMetadata", "MCoreSavePlan")
}
_ONLY_WEIGHTS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class _Opaque:
    """Stands in for an object that nobody here has use for."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _OPAQUE:
            return _Opaque
        if module.partition(".")[0] == "pathlib" and name in ("PosixPath", "PurePosixPath"):
            return Path
        if name in _ALLOWED.get(module, ()) or (
            module == "torch" and isinstance(vars(torch).get(name), torch.dtype)
        ):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"refusing to load {module}.{name}")


def load_metadata(path: Path) -> Metadata:
    """Read the metadata file of a torch_dist checkpoint.

    Raises:
        CheckpointError: missing, damaged, not such a file, or one that names what it has no business with.
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


@contextmanager
def weights_only() -> Iterator[None]:
    """In the block ``torch.load`` reads tensors and plain containers only, also where Megatron-Core or torch call it.

    torch's loader for non-tensor objects asks for everything (``weights_only=False`` in its DefaultLoadPlanner); the
    environment variable is the only thing that overrules it.
    """
    before = os.environ.get(_ONLY_WEIGHTS)
    os.environ[_ONLY_WEIGHTS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ONLY_WEIGHTS]
        else:
            os.environ[_ONLY_WEIGHTS] = before
