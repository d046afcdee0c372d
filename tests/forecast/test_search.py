"""The search for layouts: it finds the best there is, and the presets of clusters are what it finds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from megatron_salamandra.cli import main
from megatron_salamandra.cluster import load_profile
from megatron_salamandra.config import load_run_config
from megatron_salamandra.forecast import Rates, search_layouts
from megatron_salamandra.forecast.candidates import candidates
from megatron_salamandra.forecast.of_config import workload_of
from megatron_salamandra.forecast.step_time import step_seconds
from megatron_salamandra.planning import current_stages, memory_per_rank, verdict_of

GPUS = {"salamandra-2b": 256, "salamandra-7b": 512, "salamandra-40b": 1024}


@pytest.mark.parametrize("cluster", ["marenostrum5", "dgx-h100"])
@pytest.mark.parametrize("name", GPUS)
def test_the_preset_of_a_cluster_is_the_choice_of_the_planner(name: str, cluster: str) -> None:
    began = time.process_time()
    found = search_layouts(load_run_config(name), load_profile(cluster).machine, GPUS[name])
    assert time.process_time() - began < 5
    preset = load_run_config(f"{name}-{cluster}")
    for key, value in found.best[0].candidate.keys.items():
        section, field = key.split(".")
        assert getattr(getattr(preset, section), field) == value, key
    assert [one.step.total for one in found.best] == sorted(one.step.total for one in found.best)
    assert all(one.verdict.fits for one in found.best)
    assert found.why_second_lost() is not None
    frontier = [(one.verdict.needed_bytes, one.step.total) for one in found.frontier]
    assert frontier == sorted(frontier) and frontier[-1][1] == found.best[0].step.total
    assert [seconds for _, seconds in frontier] == sorted((seconds for _, seconds in frontier), reverse=True)


def test_no_layout_that_fits_is_faster_than_the_first_five() -> None:
    """Against every candidate, simulated."""
    config, machine = load_run_config("salamandra-40b"), load_profile("marenostrum5").machine
    seconds = []
    for candidate in candidates(config, machine, 128):
        ranks = memory_per_rank(
            candidate.config,
            candidate.layout,
            current_stages(candidate.config.model, candidate.config.parallel),
        )
        if verdict_of(ranks, machine.memory_gib).fits:
            work = workload_of(candidate.config, candidate.layout)
            seconds.append(step_seconds(work, machine, Rates()).total)
    found = search_layouts(config, machine, 128)
    assert found.fitting == len(seconds)
    assert [one.step.total for one in found.best] == pytest.approx(sorted(seconds)[:5])


def test_the_written_configuration_loads_and_has_the_layout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "best.yaml"
    arguments = ["salamandra-7b", "--cluster", "marenostrum5", "--nodes", "8", "--best", str(path)]
    assert main(["plan", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "Memory fits" in printed and "the second is" in printed and "yours" in printed
    found = search_layouts(load_run_config("salamandra-7b"), load_profile("marenostrum5").machine, 32)
    written = load_run_config(str(path))
    assert written.validate_for_world(32) == found.best[0].candidate.layout
    assert written.training.recompute == found.best[0].candidate.config.training.recompute


def test_where_nothing_fits_the_smallest_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "best.yaml"
    arguments = ["salamandra-40b", "--cluster", "marenostrum5", "--nodes", "1", "--best", str(path)]
    assert main(["plan", *arguments, "parallel.pipeline=1"]) == 2
    captured = capsys.readouterr()
    assert "none fits; the smallest is" in captured.out and "does not fit: " in captured.out
    assert "no layout fits" in captured.err and not path.exists()
