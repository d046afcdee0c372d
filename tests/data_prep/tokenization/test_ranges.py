"""Shards that are cut into ranges, so that no worker is idle, are the same bytes as those made in one go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenize_job import tokenize_job

from salamandra_data.errors import DataError
from salamandra_data.execution import LocalSettings, Processes, Tasks, WorkerDied
from salamandra_data.shards import ShardManifest
from salamandra_data.tokenization import TokenizeJob, driver, second_pass, tokenize_documents, tokenize_with
from salamandra_data.tokenization import plan as planning
from salamandra_data.tokenization.driver import EncodePass
from salamandra_data.tokenization.second_pass import SecondPass


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()}


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there was much text."""
    monkeypatch.setattr(planning, "_LEAST_RANGE_BYTES", 1000)


@pytest.fixture
def job(tmp_path: Path, small_tokenizer: Path) -> TokenizeJob:
    """One language, one shard of each split, documents of 1 to 4,000 words."""
    source = tmp_path / "in.jsonl"
    lengths = [1 + (number * 37) % 90 for number in range(300)] + [4000]
    source.write_text(
        "".join(
            json.dumps({"text": f"{n} tarda " * length, "language": "ca", "source": f"page {n % 7}"}) + "\n"
            for n, length in enumerate(lengths)
        )
    )
    return tokenize_job(
        [source], small_tokenizer, tmp_path / "out", validation_fraction=0.05, guard_share=0.1
    )


@pytest.fixture
def whole(job: TokenizeJob, tmp_path: Path) -> dict[str, bytes]:
    """What one worker makes, which cuts nothing."""
    tokenize_documents(job.model_copy(update={"out": tmp_path / "whole"}))
    return contents(tmp_path / "whole")


def encoded(
    monkeypatch: pytest.MonkeyPatch, fail_at: int = -1, error: BaseException | None = None
) -> list[Any]:
    """The ranges that are encoded from now on; number ``fail_at`` raises ``error``."""
    real, ranges = EncodePass.do, list[Any]()

    def do(self: EncodePass, counters: Any, unit: Any) -> None:
        if len(ranges) == fail_at and error is not None:
            raise error
        ranges.append(unit)
        real(self, counters, unit)

    monkeypatch.setattr(EncodePass, "do", do)
    return ranges


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("joined_tokens", [1 << 20, 50])
def test_shards_of_joined_ranges_are_the_same_bytes(
    job: TokenizeJob,
    whole: dict[str, bytes],
    workers: int,
    joined_tokens: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(second_pass, "_JOINED_TOKENS", joined_tokens)
    tokenize_documents(job, workers)
    assert contents(job.out) == whole
    assert {path.name for path in job.out.iterdir()} == set(whole)


def test_a_worker_tries_the_encoders_while_others_read(
    job: TokenizeJob, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the command itself tried the encoders, and nobody read meanwhile")

    monkeypatch.setattr(driver, "_LARGE_BYTES", 1)
    monkeypatch.setattr(
        driver, "_choose_encoder", refuse
    )  # not in the workers, which are processes of their own
    tokenize_documents(job.model_copy(update={"encoder": "auto"}), 2)
    bins = {name: whole[name] for name in whole if name.endswith((".bin", ".idx"))}
    assert {name: contents(job.out)[name] for name in bins} == bins


@pytest.mark.parametrize("units", [2, 9, 40])
@pytest.mark.parametrize("part_bytes", [1 << 25, 900])
def test_any_cut_gives_the_same_bytes(
    job: TokenizeJob,
    whole: dict[str, bytes],
    units: int,
    part_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Processes, "units_wanted", units)
    monkeypatch.setattr(planning, "_PART_BYTES", part_bytes)
    ranges = encoded(monkeypatch)
    result = tokenize_documents(job)
    assert contents(job.out) == whole
    assert abs(len(ranges) - units) <= 2
    assert ShardManifest.load(job.out / "ca-train-00000").encoder is not None
    assert result.groups[0].documents == ShardManifest.load(job.out / "ca-train-00000").documents


def test_many_shards_are_not_cut(job: TokenizeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "units_wanted", 4)
    ranges = encoded(monkeypatch)
    tokenize_documents(job.model_copy(update={"shard_tokens": 4000}))
    assert len(ranges) == len(list(job.out.glob("*.bin"))) > 4


@pytest.mark.parametrize("error", [KeyboardInterrupt(), WorkerDied("killed")], ids=["Ctrl-C", "killed"])
def test_ranges_that_are_encoded_are_not_encoded_again(
    job: TokenizeJob, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(Processes, "units_wanted", 8)
    with monkeypatch.context() as patch:
        encoded(patch, 3, error)
        with pytest.raises(type(error)):
            tokenize_documents(job)
    again = encoded(monkeypatch)
    tokenize_documents(job)
    assert contents(job.out) == whole and 4 <= len(again) <= 6
    assert {path.name for path in job.out.iterdir()} == set(whole)


def test_an_interrupted_join_is_done_again(
    job: TokenizeJob, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Processes, "units_wanted", 8)
    with monkeypatch.context() as patch:
        patch.setattr(second_pass, "_JOINED_TOKENS", 50)
        add, calls = second_pass.ShardWriter.add_documents, list[int]()

        def add_documents(self: Any, *arguments: Any, **named: Any) -> None:
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            add(self, *arguments, **named)

        patch.setattr(second_pass.ShardWriter, "add_documents", add_documents)
        with pytest.raises(KeyboardInterrupt):
            tokenize_documents(job)
    assert not list(job.out.glob("ca-train*"))
    again = encoded(monkeypatch)
    tokenize_documents(job)
    assert contents(job.out) == whole and again == []


def test_tasks_of_an_executor_cut_shards_too(job: TokenizeJob, whole: dict[str, bytes]) -> None:
    pytest.importorskip("datatrove")
    _, result = tokenize_with(job, Tasks(LocalSettings(), 5))
    assert contents(job.out) == whole and result is not None


def test_a_damaged_range_is_an_error(job: TokenizeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "units_wanted", 8)
    real = SecondPass.join

    def join(self: SecondPass, *arguments: Any) -> Any:
        for path in self.directory.ranges.iterdir():
            path.write_bytes(path.read_bytes()[:-4])
        return real(self, *arguments)

    monkeypatch.setattr(SecondPass, "join", join)
    with pytest.raises(DataError, match=r"(?s)ca-train-00000\.0000-of-.*cannot be used.*--scratch"):
        tokenize_documents(job)
    assert not list(job.out.glob("*.bin"))
