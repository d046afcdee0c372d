"""Which implementation computes an operation, and what is refused."""

from __future__ import annotations

import pytest
import torch

from salamandra_kernels import _backend


def test_cpu_tensors_take_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SALAMANDRA_KERNELS", raising=False)
    assert not _backend.use_triton(torch.zeros(1))


def test_reference_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALAMANDRA_KERNELS", "reference")
    assert not _backend.use_triton(torch.zeros(1, device="meta"))


def test_triton_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALAMANDRA_KERNELS", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(_backend, "triton", object())
    with pytest.raises(RuntimeError, match="on the CPU the kernels run only in Triton's interpreter"):
        _backend.use_triton(torch.zeros(1))
    with pytest.raises(RuntimeError, match="no fp64"):
        _backend.use_triton(torch.zeros(1, dtype=torch.float64))
    monkeypatch.setattr(_backend, "triton", None)
    with pytest.raises(RuntimeError, match="not installed"):
        _backend.use_triton(torch.zeros(1))


def test_unknown_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALAMANDRA_KERNELS", "cuda")
    with pytest.raises(ValueError, match="allowed: reference, triton"):
        _backend.use_triton(torch.zeros(1))


@pytest.mark.parametrize(("number", "power"), [(1, 1), (2, 2), (3, 4), (64, 64), (65, 128)])
def test_next_power_of_two(number: int, power: int) -> None:
    assert _backend.next_power_of_two(number) == power
