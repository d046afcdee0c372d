"""Certificates: what passes here, and that what is wrong fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_salamandra.certificates import certify, write_certificates
from megatron_salamandra.foundation.errors import UserError


def test_kernels_of_this_device_pass_and_are_written_with_versions(tmp_path: Path) -> None:
    made = certify(["kernels"], tmp_path, None, lambda line: None)
    write_certificates(made, tmp_path / "certificates.json")
    (entry,) = json.loads((tmp_path / "certificates.json").read_text())["certificates"]
    assert entry["passed"], entry
    assert entry["versions"]["torch"]
    assert entry["proof"]["figures"]["difference"]["swiglu float32"] < 1e-6


def test_a_wrong_kernel_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import salamandra_kernels

    right = salamandra_kernels.swiglu

    def wrong(gate_up: Any) -> Any:
        return right(gate_up) * (1.0 if gate_up.element_size() == 8 else 1.001)

    monkeypatch.setattr(salamandra_kernels, "swiglu", wrong)
    (made,) = certify(["kernels"], tmp_path, None, lambda line: None)
    assert not made.proof.passed


@pytest.mark.parametrize(("names", "told"), [(["kernel"], "kernels"), (["requeue"], "--profile")])
def test_unknown_names_and_a_drill_without_a_cluster_are_refused(
    tmp_path: Path, names: list[str], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        certify(names, tmp_path, None, lambda line: None)
