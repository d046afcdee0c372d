"""The platform is chosen by what is there, and never silently the wrong one."""

from __future__ import annotations

import pytest
import torch

from megatron_salamandra.platform import PlatformError, select_platform
from megatron_salamandra.platform import select as selection
from megatron_salamandra.train import all_overrides, parse_arguments


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return monkeypatch


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(selection.glob, "glob", lambda pattern: [])
    return monkeypatch


def test_auto_takes_the_gpu_and_host_insists_on_the_cpu(gpu: pytest.MonkeyPatch) -> None:
    assert select_platform("auto").backend == "nccl"
    assert select_platform("cuda").backend == "nccl"
    assert select_platform("host").backend == "gloo"


def test_auto_takes_the_host_without_a_gpu(no_gpu: pytest.MonkeyPatch) -> None:
    assert select_platform("auto").name == "host"
    with pytest.raises(PlatformError, match="platform=host"):
        select_platform("cuda")


def test_a_gpu_that_torch_cannot_drive_is_an_error(no_gpu: pytest.MonkeyPatch) -> None:
    no_gpu.setattr(selection.glob, "glob", lambda pattern: ["/dev/nvidia0"])
    with pytest.raises(PlatformError, match="/dev/nvidia0"):
        select_platform("auto")
    assert select_platform("host").name == "host"


def test_platform_option_is_short_for_the_key() -> None:
    arguments = parse_arguments(["tiny", "training.steps=3", "--platform", "host", "run_dir=x"])
    assert all_overrides(arguments) == ["training.steps=3", "run_dir=x", "platform=host"]


def test_host_platform_leaves_torch_as_it_was() -> None:
    before = {name: getattr(torch.cuda, name) for name in ("current_device", "Stream", "synchronize")}
    platform = select_platform("host")
    platform.start(0)
    try:
        assert torch.zeros(1, device="cuda").device.type == "cpu"
        assert torch.ones(1).cuda().type() == "torch.cuda.FloatTensor"
    finally:
        platform.stop()
    assert {name: getattr(torch.cuda, name) for name in before} == before
    assert torch.ones(1).type() == "torch.FloatTensor"
