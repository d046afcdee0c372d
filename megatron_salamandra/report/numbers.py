"""The numbers of a report as JSON values."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from typing import Any

from megatron_salamandra.report.languages import LanguageCurve
from megatron_salamandra.report.reading import RunFacts


def report_numbers(facts: RunFacts) -> dict[str, Any]:
    """Everything that the page shows in numbers; what is not known is null, and so is what is no finite number."""
    steps, time = facts.steps, facts.time
    known = {
        "run": str(facts.path),
        "made": facts.made.isoformat(timespec="seconds"),
        "missing": facts.notes,
        "status": facts.status.to_dict(),
        "steps": {
            "recorded": steps.steps,
            "last": steps.last_step,
            "tokens": steps.tokens,
            "skipped_updates": steps.skipped,
            "seconds": steps.seconds,
            "seconds_between_steps": steps.between,
            "metrics": {name: curve.summary() for name, curve in steps.curves.items()},
            "not_finite": {
                name: curve.not_finite for name, curve in steps.curves.items() if curve.not_finite
            },
        },
        "bits_per_byte": [_language(one) for one in (*facts.averages, *facts.languages)],
        "ledger": None if facts.seen is None else asdict(facts.seen),
        "phases": [asdict(phase) for phase in facts.phases],
        "incidents_by_kind": Counter(incident.kind for incident in facts.past.incidents),
        "incidents": [incident.to_dict() for incident in facts.past.incidents],
        "starts": len(facts.past.sessions),
        "repeated_steps": facts.past.repeated_steps,
        "time": {
            "started": time.started.isoformat() if time.started else None,
            "ended": time.ended.isoformat() if time.ended else None,
            "seconds": time.seconds,
            "running_seconds": time.running_seconds,
            "parts": [asdict(part) for part in time.parts],
        },
        "checkpoints": [asdict(one) for one in facts.checkpoints],
        "plan": [{**asdict(one), "ratio": one.ratio} for one in facts.comparisons],
        "energy": asdict(facts.energy),
        "environment": facts.environment,
    }
    plain: dict[str, Any] = _finite(known)
    return plain


def _language(one: LanguageCurve) -> dict[str, Any]:
    return {
        "language": one.name,
        "first_step": one.first[0],
        "first": one.first[1],
        "last_step": one.last[0],
        "last": one.last[1],
        "gain": one.gain,
        "validations": one.bits_per_byte.count,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inside) for inside in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
