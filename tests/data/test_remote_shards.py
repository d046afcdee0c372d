"""Shards behind URLs read like files, survive passing trouble, and name what lasting trouble is about."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from synthetic_blend import write_blend

from megatron_salamandra.cli import main
from megatron_salamandra.data import SampleStream, StepLoader
from megatron_salamandra.timeline import Timeline
from salamandra_data.blend_plan import BlendPlan, LanguageFactors, build_plan
from salamandra_data.errors import DataError
from salamandra_data.shards import IndexedShard
from salamandra_data.storage import RemotePath, as_location, retries

URL = "memory://bucket/shards"


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Path]:
    """The directory of a local blend, whose shards are at :data:`URL` too; the waits between attempts are short."""
    write_blend(tmp_path)
    filesystem = fsspec.filesystem("memory")
    for path in tmp_path.iterdir():
        if path.suffix in (".bin", ".idx", ".json"):
            filesystem.pipe_file(f"/bucket/shards/{path.name}", path.read_bytes())
    yield tmp_path
    filesystem.rm("/bucket", recursive=True)


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Exception], list[Any]]:
    """Makes the next requests for bytes fail; returns the list of requests made."""
    requests: list[Any] = []
    original = MemoryFileSystem.cat_file
    monkeypatch.setattr(retries, "FIRST_WAIT_SECONDS", 0.001)

    def install(failures: int, error: Exception) -> list[Any]:
        left = [failures]

        def cat_file(
            self: MemoryFileSystem, path: str, start: Any = None, end: Any = None, **rest: Any
        ) -> Any:
            requests.append((path, start, end))
            if left[0] > 0:
                left[0] -= 1
                raise error
            return original(self, path, start=start, end=end, **rest)

        monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
        return requests

    return install


def remote_plan(directory: Path) -> Path:
    factors = LanguageFactors({"ca": 2})
    build_plan([URL], factors, tokenizer=directory / "tokenizer.model").save(directory / "remote.yaml")
    return directory / "remote.yaml"


def test_stream_over_urls_gives_the_same_samples(remote: Path) -> None:
    build_plan([remote], LanguageFactors({"ca": 2})).save(remote / "local.yaml")
    streams = [
        SampleStream(BlendPlan.load(plan), 128, seed=3)
        for plan in (remote / "local.yaml", remote_plan(remote))
    ]
    assert streams[0].fingerprint() == streams[1].fingerprint()
    for sample in range(400):
        assert np.array_equal(streams[0].sample(sample), streams[1].sample(sample))


def test_plans_keep_urls_wherever_they_are_written(remote: Path, tmp_path: Path) -> None:
    plan = BlendPlan.load(remote_plan(remote))
    plan.freeze(tmp_path / "elsewhere" / "blend.lock.yaml")
    again = BlendPlan.load(tmp_path / "elsewhere" / "blend.lock.yaml")
    assert again == plan
    assert str(again.sources[0].shards[0].path) == f"{URL}/ca-train-00000"


def test_commands_take_urls(remote: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", URL, str(remote_plan(remote))]) == 0
    assert "6 shards" in capsys.readouterr().out
    assert main(["data", "inspect", URL]) == 0
    assert "ga-train-00000" in capsys.readouterr().out
    filesystem = fsspec.filesystem("memory")
    raw = bytearray(filesystem.cat_file("/bucket/shards/ga-train-00000.bin"))
    raw[100] ^= 1
    filesystem.pipe_file("/bucket/shards/ga-train-00000.bin", bytes(raw))
    assert main(["data", "verify", f"{URL}/ga-train-00000"]) == 1
    assert "memory://bucket/shards/ga-train-00000.bin: bytes 0 to" in capsys.readouterr().out


def test_documents_of_a_remote_shard_are_those_of_the_file(remote: Path) -> None:
    here, there = IndexedShard.open(remote / "en-train-00000"), IndexedShard.open(f"{URL}/en-train-00000")
    there.check_structure()
    assert there.documents == here.documents > 10
    for number in range(here.documents):
        assert np.array_equal(there.document(number), here.document(number))


def test_passing_trouble_is_waited_out(remote: Path, trouble: Callable[[int, Exception], list[Any]]) -> None:
    shard = IndexedShard.open(f"{URL}/en-train-00000")
    requests = trouble(3, ConnectionResetError("reset by peer"))
    assert shard.read(5, 100).tolist() == IndexedShard.open(remote / "en-train-00000").read(5, 100).tolist()
    assert len(requests) == 4


def test_lasting_trouble_surfaces_from_the_background_thread_with_the_shards_name(
    remote: Path, trouble: Callable[[int, Exception], list[Any]]
) -> None:
    stream = SampleStream(BlendPlan.load(remote_plan(remote)), 128, seed=3)
    trouble(10_000, TimeoutError("no answer"))
    with (
        StepLoader(
            stream,
            timeline=Timeline.of_one_phase("main", steps=1, batch_size=1, sequence_length=128),
            micro_batch_size=1,
            data_parallel_rank=0,
            data_parallel_size=1,
        ) as loader,
        pytest.raises(DataError, match=r"memory://bucket/shards/\w+-train-00000.*failed 6 times.*no answer"),
    ):
        loader.next_step()


def test_what_is_missing_is_not_tried_again(
    remote: Path, trouble: Callable[[int, Exception], list[Any]]
) -> None:
    requests = trouble(0, ValueError())
    with pytest.raises(DataError, match=r"memory://bucket/shards/xx-train-00000.idx: missing"):
        IndexedShard.open(f"{URL}/xx-train-00000")
    assert requests == []
    with pytest.raises(DataError, match="nosuch://x/y.idx: cannot be reached"):
        IndexedShard.open("nosuch://x/y")


def test_an_object_cut_short_during_the_run_is_named(remote: Path) -> None:
    stream = SampleStream(BlendPlan.load(remote_plan(remote)), 128, seed=3)
    stream.sample(0)
    filesystem = fsspec.filesystem("memory")
    for name in filesystem.glob("/bucket/shards/*.bin"):
        filesystem.pipe_file(name, filesystem.cat_file(name)[:20])
    for sample in {stream.locate(sample).language: sample for sample in range(50)}.values():
        with pytest.raises(DataError, match=r"memory://.*\.bin"):
            stream.sample(sample)


def test_locations_are_paths_or_urls(tmp_path: Path) -> None:
    assert as_location(f"file://{tmp_path}") == tmp_path
    assert as_location("shards/ca-train-00000") == Path("shards/ca-train-00000")
    url = as_location("s3://bucket/a.b/ca-train-00000.bin")
    assert isinstance(url, RemotePath) and url.suffix == ".bin"
    assert str(url.with_suffix("")) == "s3://bucket/a.b/ca-train-00000"
    assert str(url.parent / "x") == "s3://bucket/a.b/x"


def test_a_file_url_and_a_path_are_the_same_shard(remote: Path) -> None:
    shutil.copy(remote / "tokenizer.model", remote / "copy.model")
    plan = build_plan([f"file://{remote}", remote], LanguageFactors({}))
    assert sum(len(source.shards) for source in plan.sources) == 3
