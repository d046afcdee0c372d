"""Certificates: what passes here, and that what is wrong fails."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rank_jobs import train_as_told
from rank_pool import RankPool

from megatron_salamandra import __version__
from megatron_salamandra.certificates import Proof, certify, layouts, resume, write_certificates
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_STOPPED
from megatron_salamandra.foundation.source_revision import source_revision
from megatron_salamandra.run_directory import MetricsLog, RunDirectory

Train = Callable[[Sequence[str], int, int], None]
LAYOUTS = {"one-rank", "DP2", "TP2+SP", "PP2", "TP2xPP2", "DP4"}


def test_kernels_of_this_device_pass_and_are_written_with_versions(tmp_path: Path) -> None:
    made = certify(["kernels"], tmp_path, None, lambda line: None)
    write_certificates(made, tmp_path / "certificates.json")
    (entry,) = json.loads((tmp_path / "certificates.json").read_text())["certificates"]
    assert entry["passed"], entry
    assert entry["versions"]["torch"] and entry["versions"]["megatron-core"]
    assert entry["versions"]["megatron-salamandra"] == __version__
    assert (entry["revision"], entry["host"]) == (source_revision(), socket.gethostname())
    assert entry["date"].endswith("+00:00")
    assert entry["proof"]["figures"]["difference"]["swiglu float32"] < 1e-6


def test_a_wrong_kernel_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import salamandra_kernels

    right = salamandra_kernels.swiglu

    def wrong(gate_up: Any) -> Any:
        return right(gate_up) * (1.0 if gate_up.element_size() == 8 else 1.001)

    monkeypatch.setattr(salamandra_kernels, "swiglu", wrong)
    (made,) = certify(["kernels"], tmp_path, None, lambda line: None)
    assert not made.proof.passed


def test_a_kernel_that_gives_no_number_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import salamandra_kernels

    right = salamandra_kernels.rms_norm

    def wrong(x: Any, *arguments: Any) -> Any:
        return right(x, *arguments) * (1.0 if x.element_size() == 8 else math.nan)

    monkeypatch.setattr(salamandra_kernels, "rms_norm", wrong)
    (made,) = certify(["kernels"], tmp_path, None, lambda line: None)
    assert not made.proof.passed


def setting(arguments: Sequence[str], key: str) -> str:
    (value,) = [word.partition("=")[2] for word in arguments if word.startswith(f"{key}=")]
    return value


def pretend(loss: Callable[[str, int], float | None]) -> Train:
    """Training that writes the losses of a function of the run's name and the step; none where that is None."""

    def train(arguments: Sequence[str], ranks: int, expected: int = 0) -> None:
        run = RunDirectory(Path(setting(arguments, "run_dir")))
        run.path.mkdir(parents=True, exist_ok=True)
        log = MetricsLog(run.metrics)
        stop = "training.stop_after_steps=5" in arguments
        first = len(log.read()) + 1
        for step in range(first, 6 if stop else 11):
            value = loss(run.path.name if first == 1 else "resumed", step)
            if value is not None:
                log.append(step, {"loss": value})

    return train


def prove_layouts_with(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int = 4
) -> Proof:
    monkeypatch.setattr(layouts, "train", train)
    monkeypatch.setattr(layouts, "available_ranks", lambda: ranks)
    (made,) = certify(["layouts"], tmp_path, None, lambda line: None)
    return made.proof


def prove_resume_with(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proof:
    monkeypatch.setattr(resume, "train", train)
    monkeypatch.setattr(resume, "available_ranks", lambda: 2)
    (made,) = certify(["resume"], tmp_path, None, lambda line: None)
    return made.proof


def on_ranks_of(pool: RankPool) -> Train:
    """Real training."""

    def train(arguments: Sequence[str], ranks: int, expected: int = 0) -> None:
        assert set(pool.run(ranks, train_as_told, arguments)) == {expected}

    return train


def test_layouts_of_two_ranks_and_a_resume_pass_in_real_training(
    rank_pool: RankPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = on_ranks_of(rank_pool)
    proof = prove_layouts_with(train, tmp_path, monkeypatch, ranks=2)
    assert proof.passed, proof.message
    assert set(proof.figures["relative_difference"]) == {"DP2", "TP2+SP", "PP2"}
    proof = prove_resume_with(train, tmp_path, monkeypatch)
    assert proof.passed, proof.message


@pytest.mark.parametrize("broken", sorted(LAYOUTS))
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda right: right * 1.0002, id="far"),
        pytest.param(lambda right: math.nan, id="nan"),
        pytest.param(lambda right: math.inf, id="infinite"),
        pytest.param(lambda right: None, id="missing"),
    ],
)
def test_one_wrong_loss_in_one_layout_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, wrong: Callable[[float], float | None]
) -> None:
    def loss(run: str, step: int) -> float | None:
        right = 5.0 - step / 100
        return wrong(right) if (run, step) == (broken, 7) else right

    assert not prove_layouts_with(pretend(loss), tmp_path, monkeypatch).passed


def test_layouts_that_agree_pass_and_no_layout_is_no_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = pretend(lambda run, step: 5.0 - step / 100)
    proof = prove_layouts_with(right, tmp_path, monkeypatch)
    assert proof.passed and set(proof.figures["relative_difference"]) == LAYOUTS - {"one-rank"}
    assert not prove_layouts_with(right, tmp_path, monkeypatch, ranks=1).passed


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda step: 5.0 - step / 100 + 1e-12 * (step >= 8), "other from step 8 on"),
        (lambda step: math.nan if step == 6 else 5.0 - step / 100, "other from step 6 on"),
        (lambda step: None if step == 10 else 5.0 - step / 100, "10 and 9 losses"),
    ],
)
def test_a_resume_that_differs_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[int], float | None], told: str
) -> None:
    def loss(run: str, step: int) -> float | None:
        return wrong(step) if run == "resumed" else 5.0 - step / 100

    proof = prove_resume_with(pretend(loss), tmp_path, monkeypatch)
    assert not proof.passed
    assert told in proof.message


def test_a_run_that_fails_fails_its_certificate_and_not_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(arguments: Sequence[str], ranks: int, expected: int = EXIT_STOPPED) -> None:
        raise UserError("training ended with code 137, expected 0")

    monkeypatch.setattr(resume, "train", train)
    made = certify(["resume", "kernels"], tmp_path, None, lambda line: None)
    assert [one.proof.passed for one in made] == [False, True]
    assert "code 137" in made[0].proof.message


@pytest.mark.parametrize(("names", "told"), [(["kernel"], "kernels"), (["requeue"], "--profile")])
def test_unknown_names_and_a_drill_without_a_cluster_are_refused(
    tmp_path: Path, names: list[str], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        certify(names, tmp_path, None, lambda line: None)
