"""The command: its groups, exit codes and output for scripts."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from megatron_salamandra import cli


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("salamandra-2b", 2_253_490_176), ("salamandra-7b", 7_768_117_248), ("salamandra-40b", 40_433_885_184)],
)
def test_plan_json_prints_the_parameters(
    name: str, parameters: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", name, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["parameters"] == parameters
    assert sum(matrix["total"] for matrix in plan["matrices"]) == parameters


def test_plan_prints_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "salamandra-40b", "parallel.pipeline=8", "--world-size", "1024"]) == 0
    page = capsys.readouterr().out
    for fragment in (
        "40,433,885,184 parameters",
        "TP4 PP8 DP32",
        "balanced: parallel.pipeline_layout=",
        "GiB",
    ):
        assert fragment in page
    assert max(map(len, page.splitlines())) <= 120


def test_suggested_layout_can_be_pasted_back(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["plan", "salamandra-2b", "parallel.pipeline=4", "--json"])
    layout = json.loads(capsys.readouterr().out)["layout"]["suggested_pipeline_layout"]
    pasted = [
        "plan",
        "salamandra-2b",
        "parallel.pipeline=4",
        f"parallel.pipeline_layout='{layout}'",
        "--json",
    ]
    assert cli.main(pasted) == 0
    assert json.loads(capsys.readouterr().out)["layout"]["stage_imbalance"] < 1.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "no-such-preset"], "neither a file ending in .yaml nor a preset"),
        (["plan", "tiny", "parallel.tensor=3"], "parallel.tensor = 3 does not divide"),
        (["plan", "tiny", "--world-size", "3", "parallel.tensor=2"], "needs a multiple of 2 ranks"),
        (["plan", "tiny", "--world-size", "0"], "needs a multiple of 1 ranks, but there are 0"),
    ],
)
def test_bad_configuration_is_code_2_without_traceback(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    answer = capsys.readouterr()
    assert message in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""


@pytest.mark.parametrize(
    "arguments",
    [["no-such-group"], [], ["plan"], ["plan", "tiny", "--nonsense"], ["doctor", "parallel.tensor=2"]],
)
def test_bad_usage_is_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2


def test_every_group_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for group in cli.GROUPS:
        with pytest.raises(SystemExit) as caught:
            cli.main([group, "--help"])
        assert caught.value.code == 0
        assert group in capsys.readouterr().out


def test_doctor_lists_what_is_needed_and_what_is_optional(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    table = capsys.readouterr().out
    assert "Needed" in table
    assert "Optional" in table
    cli.main(["doctor", "--json"])
    libraries = {row["name"]: row for row in json.loads(capsys.readouterr().out)["libraries"]}
    assert libraries["megatron-core"]["needed"]
    assert not libraries["triton"]["needed"]


def test_module_runs_like_the_command_and_listing_groups_imports_no_torch() -> None:
    program = (
        "import sys; from megatron_salamandra.cli import build_parser; build_parser();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    command = [sys.executable, "-m", "megatron_salamandra.cli", "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("salamandra ")


def test_errors_of_our_packages_are_told_and_others_are_not_swallowed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from salamandra_data.errors import DataError

    def raising(error: Exception) -> None:
        def make_plan(*_: object) -> None:
            raise error

        monkeypatch.setattr("megatron_salamandra.planning.make_plan", make_plan)

    raising(DataError("shard x: truncated"))
    assert cli.main(["plan", "tiny"]) == 1
    assert capsys.readouterr().err == "shard x: truncated\n"
    raising(ValueError("a mistake of ours"))
    with pytest.raises(ValueError, match="a mistake of ours"):
        cli.main(["plan", "tiny"])


def test_all_groups_are_there() -> None:
    wanted = {"checkpoint", "data", "doctor", "generate", "hf", "plan", "quickstart", "train"}
    assert wanted <= set(cli.GROUPS)


def test_overrides_may_stand_before_between_and_after_options(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "tiny", "parallel.tensor=2", "--world-size", "4", "parallel.pipeline=2", "--json"]
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out)["layout"]["tensor"] == 2
    assert cli.main([*words, "training.steps=7"]) == 0
    with pytest.raises(SystemExit):
        cli.main(["doctor", "parallel.tensor=2"])


def test_a_mistyped_option_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", "blend", "--shards", "s", "--factors", "f", "--out", "o", "--buget-tokens", "3"])
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2].endswith("error: unrecognized arguments: --buget-tokens 3")
    assert lines[-1] == "  did you mean --budget-tokens?"


def test_train_waits_for_no_other_command_before_it_can_hear_a_signal() -> None:
    code = (
        "import sys; from megatron_salamandra.cli import build_parser; build_parser('train')\n"
        "sys.exit(', '.join({'pydantic', 'numpy', 'torch', 'salamandra_data'} & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
