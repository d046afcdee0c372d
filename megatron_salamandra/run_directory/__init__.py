"""The directory of a run: what lies where, and records that are written and read in one place. Never imports torch.

Training writes it; reports, doctor, resume checks, evaluation and export read it. ``layout.py`` has all names.
"""

from __future__ import annotations

from megatron_salamandra.run_directory.checkpoint_state import (
    CheckpointError,
    CheckpointState,
    LedgerRecord,
)
from megatron_salamandra.run_directory.checkpoints import (
    MANIFEST,
    SHARDS,
    STATE,
    TOKENIZER,
    check_same_model,
    complete_checkpoints,
    latest_checkpoint,
    read_state,
    resolve_checkpoint,
    step_directory,
    step_of,
)
from megatron_salamandra.run_directory.errors import RunDirectoryError, make_logs, unwritable
from megatron_salamandra.run_directory.events import Event, EventLog, read_events
from megatron_salamandra.run_directory.history import check_checkpoints_are_there, last_saved_step
from megatron_salamandra.run_directory.incidents import (
    Incident,
    IncidentError,
    incident_number,
    next_incident_number,
    read_incident,
    write_incident,
)
from megatron_salamandra.run_directory.layout import CONFIG, ROUND_DIR, RunDirectory
from megatron_salamandra.run_directory.manifest import (
    TENSORS,
    BlockSums,
    DamagedCheckpointError,
    Manifest,
    describe_files,
    read_manifest,
    verify_checkpoint,
    write_manifest,
)
from megatron_salamandra.run_directory.marks import (
    checkpoints_in_use,
    mark_checkpoint,
    read_marks,
    unmark_checkpoint,
)
from megatron_salamandra.run_directory.owner import (
    OwnershipLost,
    RunOwner,
    is_silent,
    own,
    read_owner,
    release,
)
from megatron_salamandra.run_directory.partial import (
    begin_partial,
    delete_checkpoint,
    drop_partial,
    make_partial,
    place_of_partial,
    publish_partial,
    set_aside,
)
from megatron_salamandra.run_directory.records import MetricsLog, StepRecord, ValidationLog, ValidationRecord
from megatron_salamandra.run_directory.write_guard import WriteGuard

__all__ = [
    "CONFIG",
    "MANIFEST",
    "ROUND_DIR",
    "SHARDS",
    "STATE",
    "TENSORS",
    "TOKENIZER",
    "BlockSums",
    "CheckpointError",
    "CheckpointState",
    "DamagedCheckpointError",
    "Event",
    "EventLog",
    "Incident",
    "IncidentError",
    "LedgerRecord",
    "Manifest",
    "MetricsLog",
    "OwnershipLost",
    "RunDirectory",
    "RunDirectoryError",
    "RunOwner",
    "StepRecord",
    "ValidationLog",
    "ValidationRecord",
    "WriteGuard",
    "begin_partial",
    "check_checkpoints_are_there",
    "check_same_model",
    "checkpoints_in_use",
    "complete_checkpoints",
    "delete_checkpoint",
    "describe_files",
    "drop_partial",
    "incident_number",
    "is_silent",
    "last_saved_step",
    "latest_checkpoint",
    "make_logs",
    "make_partial",
    "mark_checkpoint",
    "next_incident_number",
    "own",
    "place_of_partial",
    "publish_partial",
    "read_events",
    "read_incident",
    "read_manifest",
    "read_marks",
    "read_owner",
    "read_state",
    "release",
    "resolve_checkpoint",
    "set_aside",
    "step_directory",
    "step_of",
    "unmark_checkpoint",
    "unwritable",
    "verify_checkpoint",
    "write_incident",
    "write_manifest",
]
