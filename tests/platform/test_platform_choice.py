"""The platform is chosen by what is there, and never silently the wrong one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import torch

from megatron_salamandra.platform import PlatformError, select_platform
from megatron_salamandra.platform import select as selection
from megatron_salamandra.platform.cuda import kernel_cache
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


@pytest.mark.parametrize("taken_by", ["nobody", "a link", "a directory open to all", "a file"])
def test_compiled_kernels_lie_where_nobody_else_can_put_some(
    taken_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    usual = tmp_path / f"salamandra-triton-{os.getuid()}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if taken_by == "a link":
        usual.symlink_to(elsewhere)
    elif taken_by == "a directory open to all":
        usual.mkdir()
        usual.chmod(0o777)
    elif taken_by == "a file":
        usual.touch()
    place = kernel_cache()
    assert (place == usual) == (taken_by == "nobody")
    assert place.lstat().st_mode & 0o077 == 0
    assert kernel_cache() == place or taken_by != "nobody"
