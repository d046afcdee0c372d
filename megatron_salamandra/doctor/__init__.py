"""What a machine, its storage and its cluster can do for a run, as checks that never crash. Imports torch in child
processes only."""

from __future__ import annotations

from megatron_salamandra.doctor.devices import device_checks
from megatron_salamandra.doctor.section import Section, render_sections
from megatron_salamandra.doctor.site import judge_settings, site_checks
from megatron_salamandra.doctor.storage import storage_checks

__all__ = [
    "Section",
    "device_checks",
    "judge_settings",
    "render_sections",
    "site_checks",
    "storage_checks",
]
