"""What must make a step longer or shorter, and what must not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from megatron_salamandra.cli import main
from megatron_salamandra.cluster import load_profile
from megatron_salamandra.config import load_run_config
from megatron_salamandra.forecast import RunForecast, forecast_run
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE
from megatron_salamandra.planning import count_parameters, training_flops_per_token

MN5 = load_profile("marenostrum5").machine


def forecast(name: str, gpus: int, *overrides: str) -> RunForecast:
    return forecast_run(load_run_config(name, overrides), MN5, gpus)


def step(name: str, gpus: int, *overrides: str) -> dict[str, float]:
    found = forecast(name, gpus, *overrides).longest.step
    return {**found.parts(), "total": found.total}


@pytest.mark.parametrize(
    ("name", "gpus"), [("salamandra-2b", 256), ("salamandra-7b", 512), ("salamandra-40b", 1024)]
)
def test_the_published_layouts_reach_a_believable_share_of_the_peak(name: str, gpus: int) -> None:
    found = forecast(name, gpus)
    config = load_run_config(name)
    flops = training_flops_per_token(config.model, config.data.sequence_length).total
    share = found.longest.tokens_per_second * flops / gpus / (MN5.bf16_teraflops * 1e12)
    assert found.mfu(found.longest) == pytest.approx(share)
    assert 0.2 < share < 0.55
    assert found.checkpoint_bytes == 14 * count_parameters(config.model).total
    assert found.days * 86400 == pytest.approx(config.total_steps * found.longest.step.total)


def test_full_recompute_costs_about_a_third_of_the_products() -> None:
    none, full = (step("salamandra-7b", 512, f"training.recompute={kind}") for kind in ("none", "full"))
    assert none["recompute"] == 0
    assert full["recompute"] > none["matrices"] / 3
    assert full["total"] > 1.15 * none["total"]


def test_without_overlap_all_of_the_network_shows() -> None:
    hidden = step("salamandra-2b", 256)
    shown = step(
        "salamandra-2b", 256, "optimizer.overlap_param_gather=false", "optimizer.overlap_grad_reduce=false"
    )
    assert shown["data"] > 2 * hidden["data"]


def test_a_balanced_pipeline_waits_less() -> None:
    plain = step("salamandra-2b", 256, "parallel.pipeline=4", "training.recompute=none")
    balanced = step(
        "salamandra-2b",
        256,
        "parallel.pipeline=4",
        "training.recompute=none",
        "parallel.pipeline_layout='Et*9|t*9|t*6|L'",
    )
    assert balanced["total"] < plain["total"]


def test_tensor_parallelism_over_nodes_is_slow() -> None:
    inside = step("salamandra-40b", 1024, "parallel.pipeline=1")
    across = step("salamandra-40b", 1024, "parallel.pipeline=1", "parallel.tensor=8")
    assert across["tensor"] > 3 * inside["tensor"]


def test_a_faster_machine_is_faster() -> None:
    config = load_run_config("salamandra-7b")
    slow = forecast_run(config, MN5, 512).longest.step
    for change in (
        {"memory_gb_s": 4000},
        {"adapter_gbit_s": 400},
        {"bf16_teraflops": 1200},
        {"link_gb_s": 900},
    ):
        assert forecast_run(config, replace(MN5, **change), 512).longest.step.total < slow.total


def test_every_phase_has_its_own_step() -> None:
    found = forecast("salamandra-40b-phases", 1024)
    assert [phase.name for phase in found.phases] == ["corpus_a", "corpus_b", "annealing", "long_context"]
    assert found.phases[-1].step.attention > found.phases[0].step.attention
    assert found.days * 86400 == pytest.approx(sum(phase.seconds for phase in found.phases))


def test_the_command_prints_the_forecast(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "salamandra-7b", "--cluster", "dgx-h100", "--nodes", "64"]) == 0
    printed = capsys.readouterr().out
    assert (
        "Time on 512 GPUs (H100 80 GB, 8 a node)" in printed and "GPU-hours" in printed and "USD" in printed
    )
    assert main(["plan", "salamandra-7b", "--cluster", "marenostrum5", "--nodes", "128", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["forecast"]
    parts = told["phases"][0]["step_parts"]
    assert sum(parts.values()) == pytest.approx(told["phases"][0]["step_seconds"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes", "4"], "--nodes needs --cluster"),
        (["--cluster", "marenostrum5"], "needs the size of the job"),
        (["--cluster", "marenostrum5", "--nodes", "0"], "--nodes 0 is no number of nodes"),
        (["--cluster", "generic", "--nodes", "4"], "does not say what its GPUs can do: node.gpu, "),
    ],
)
def test_what_cannot_be_foreseen_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "salamandra-7b", *arguments]) == EXIT_USAGE
    assert message in capsys.readouterr().err
