"""How many ranks there are, how the model is laid out over them, and how they are started and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_salamandra.config import load_run_config
from megatron_salamandra.quickstart import QuickstartError, QuickstartJob
from megatron_salamandra.quickstart.rank_layout import choose_ranks, layout_overrides
from megatron_salamandra.quickstart.rank_processes import run_ranks
from megatron_salamandra.quickstart.training import run_overrides


@pytest.mark.parametrize(
    ("requested", "gpus", "ranks"),
    [
        (None, 0, 4),
        (None, 1, 1),
        (None, 2, 2),
        (None, 3, 2),
        (None, 4, 4),
        (None, 8, 4),
        (8, 0, 8),
        (1, 4, 1),
        (8, 8, 8),
    ],
)
def test_ranks_follow_the_machine(requested: int | None, gpus: int, ranks: int) -> None:
    assert choose_ranks(requested, gpus) == ranks


@pytest.mark.parametrize(("requested", "gpus"), [(3, 0), (0, 0), (6, 8), (4, 2)])
def test_ranks_that_do_not_fit_are_refused(requested: int, gpus: int) -> None:
    with pytest.raises(QuickstartError, match=f"--ranks {requested}"):
        choose_ranks(requested, gpus)


@pytest.mark.parametrize(("ranks", "data"), [(1, 1), (2, 1), (4, 1), (8, 2), (16, 4)])
def test_every_layout_is_a_valid_run(ranks: int, data: int) -> None:
    config = load_run_config("quickstart", run_overrides(QuickstartJob(out=Path("runs/x")), ranks))
    layout = config.validate_for_world(ranks)
    assert layout.data_parallel_size == data
    assert (config.parallel.tensor, config.parallel.pipeline) == (min(ranks, 2), 2 if ranks >= 4 else 1)
    assert len(layout_overrides(ranks)) == 3


def test_the_preset_validates_before_and_after() -> None:
    config = load_run_config("quickstart", [])
    assert config.validation.at_start
    assert config.validation.at_end
    assert config.checkpoint.at_end


STAND_IN = """
import os, pathlib, signal, sys, time
rank = int(os.environ["RANK"])
what, record = sys.argv[1], pathlib.Path(sys.argv[2])
if what == "describe":
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS")
    (record / str(rank)).write_text(" ".join(os.environ[name] for name in names))
elif what == "stop":
    sys.exit(75)
elif what == "crash" and rank == 1:
    sys.exit(3)
elif what in ("crash", "wait"):
    def save(number, frame):
        (record / f"saved-{rank}").touch()
        sys.exit(75)
    signal.signal(signal.SIGTERM, save)
    (record / f"ready-{rank}").touch()
    time.sleep(60)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which ``python -m megatron_salamandra.train`` is a stand-in for training."""
    package = tmp_path / "megatron_salamandra"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "train.py").write_text(STAND_IN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_ranks_are_told_their_place(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run_ranks(["describe", str(stand_in)], 2) == 0
    assert (stand_in / "1").read_text() == "1 1 2 127.0.0.1 1"


def test_the_code_of_a_stop_is_seen(stand_in: Path) -> None:
    assert run_ranks(["stop", str(stand_in)], 2) == 75


def test_when_one_rank_fails_the_others_are_ended(stand_in: Path) -> None:
    started = time.monotonic()
    assert run_ranks(["crash", str(stand_in)], 3) == 3
    assert time.monotonic() - started < 30


def test_an_interrupt_lets_the_ranks_save(stand_in: Path) -> None:
    program = "import sys; from megatron_salamandra.quickstart.rank_processes import run_ranks; import os;"
    program += "os.chdir(sys.argv[1]); run_ranks(['wait', sys.argv[1]], 2)"
    elsewhere = Path(__file__).parent
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(stand_in)],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not all((stand_in / f"ready-{rank}").exists() for rank in (0, 1)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert (stand_in / "saved-0").exists()
    assert (stand_in / "saved-1").exists()
