"""What is missing is named with how to get it; what was mistyped with what was meant."""

from __future__ import annotations

import pytest

from megatron_salamandra.foundation.names import name_hint, nearest
from megatron_salamandra.foundation.packages import MissingPackage, check_installed, is_installed, require


def test_missing_packages_are_all_named_with_the_command_that_installs_them() -> None:
    with pytest.raises(MissingPackage) as caught:
        check_installed("json", "no_such_a", "no_such_b.part", extra="data", purpose="curation")
    assert str(caught.value).startswith(
        "curation needs no_such_a, no_such_b.part, which are not installed\n  pip"
    )
    assert "'.[data]'" in str(caught.value)


def test_installed_packages_are_found_and_imported() -> None:
    assert is_installed("json.decoder")
    check_installed("json", extra="data", purpose="x")
    assert require("json.decoder", extra="data", purpose="x").JSONDecoder


def test_a_package_that_breaks_on_import_is_told_with_the_reason(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_on_import.py").write_text("raise ImportError('libfoo.so.1 is not there')")  # type: ignore[operator]
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackage, match="libfoo.so.1 is not there"):
        require("broken_on_import", extra="hf", purpose="the export")


def test_hints_name_the_nearest_or_list_all() -> None:
    assert nearest("tensr", ["tensor", "pipeline"]) == "tensor"
    assert name_hint("tensr", ["tensor", "pipeline"]) == "did you mean tensor?"
    assert name_hint("zzz", ["tensor", "pipeline"], of="keys") == "keys: tensor, pipeline"
