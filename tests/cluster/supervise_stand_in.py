"""The program of the batch script in the lab, RUN_DIR NODES [options]: the real supervisor over stand-in ranks."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from megatron_salamandra.cluster import NodeCheck, Patience, Progress, SlurmJob, Supervisor, Watch
from megatron_salamandra.foundation.errors import UserError


def main() -> int:
    run_dir, nodes, *rest = sys.argv[1:]
    state = Path(run_dir) / "state.json"
    metrics = Path(run_dir) / "metrics.jsonl"

    def progress() -> Progress:
        saved = json.loads(state.read_text()) if state.exists() else {"step": 0, "steps": 1}
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        last = json.loads(lines[-1])["step"] if lines else 0
        return Progress(last, saved["step"], saved["step"] >= saved["steps"])

    return Supervisor(
        SlurmJob.current(),
        Path(run_dir),
        [sys.executable, str(Path(__file__).parent / "stand_in_training.py"), run_dir, *rest],
        progress,
        int(nodes),
        watch=Watch(start_seconds=120.0, beat_seconds=8.0, leave_seconds=5.0),
        patience=Patience(waits_seconds=(float(os.environ.get("SALAMANDRA_LAB_WAIT", "0.5")), 1.0, 1.5)),
        start_seconds=1.0,
        stop_seconds=lambda: 4.0,
        lead_seconds=60.0,
        look_seconds=2.0,
        node_check=node_check(),
        say=lambda line: print(line, flush=True),
    ).run()


def node_check() -> NodeCheck | None:
    """As the test asks for by SALAMANDRA_LAB_CHECK, the seconds that a node has to answer."""
    seconds = os.environ.get("SALAMANDRA_LAB_CHECK")
    program = str(Path(__file__).parent / "stand_in_node_check.py")
    return NodeCheck([sys.executable, program], gpus=0, seconds=float(seconds)) if seconds else None


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
