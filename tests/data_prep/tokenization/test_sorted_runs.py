"""Runs are few whatever the size of the input, hold every document once, and tell when they were damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenize_job import tokenize_job

from salamandra_data.errors import DataError
from salamandra_data.execution import WorkerPool
from salamandra_data.tokenization import first_pass, sorted_runs
from salamandra_data.tokenization import plan as planning
from salamandra_data.tokenization.document_hash import KEY_RANGE, even_bounds
from salamandra_data.tokenization.plan import shard_bounds
from salamandra_data.tokenization.range_reader import Documents, RangeReader, first_documents
from salamandra_data.tokenization.run_file import Group, Run, label_of, names_of
from salamandra_data.tokenization.sorted_runs import CollectedDocuments, RunWriter

CATALAN: Group = ("ca", "train")
GROUPS: list[Group] = [CATALAN, ("ca", "validation"), ("eu", "train")]


def held(file: int, keys: list[int], first_line: int = 1) -> CollectedDocuments:
    """Documents that say where they are from."""
    lines = range(first_line, first_line + len(keys))
    texts = [f"{file}:{line} ".encode() * (line % 3 + 1) for line in lines]
    labels = [label_of(f"source {line % 2}", None) for line in lines]
    return CollectedDocuments(
        file=file,
        keys=np.array(keys, dtype=np.uint64),
        lines=np.array(lines, dtype=np.uint64),
        records=b"".join(text + label for text, label in zip(texts, labels, strict=True)),
        text_bytes=np.array([len(text) for text in texts], dtype=np.uint64),
        label_bytes=np.array([len(label) for label in labels], dtype=np.uint64),
        fast=np.array([line % 2 == 0 for line in lines]),
    )


def nothing() -> None:
    """Go on."""


def all_of(runs: list[Run], group: Group, parts: int = 1) -> Iterator[Documents]:
    with RangeReader(runs, group, even_bounds(parts)) as reader:
        for part in range(parts):
            yield reader.part(part)


@given(
    key_lists=st.lists(
        st.lists(st.integers(0, 5) | st.integers(0, KEY_RANGE - 1), max_size=5), min_size=1, max_size=40
    ),
    most=st.integers(1, 12),
    parts=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_sorted_runs_hold_every_document_in_the_order_of_keys_files_and_lines(
    tmp_path_factory: pytest.TempPathFactory, key_lists: list[list[int]], most: int, parts: int
) -> None:
    directory = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_runs, "FAN_IN", 3)
        patch.setattr(sorted_runs, "_MERGED_PART_BYTES", 40)
        writer = RunWriter(directory, "run", run_bytes=1)
        expected: dict[Group, list[tuple[int, int, int]]] = {}
        for file, keys in enumerate(key_lists):
            group = GROUPS[file % 3]
            if keys:
                writer.add(group, held(file, keys))
                expected.setdefault(group, []).extend(
                    (key, file, line) for line, key in enumerate(keys, start=1)
                )
        runs = writer.finish(most, nothing)
    assert len(runs) <= most
    assert {run.path for run in runs} == set(directory.iterdir())
    for group, places in expected.items():
        found = []
        for documents in all_of(runs, group, parts):
            for number, text in enumerate(documents.texts):
                file, line = int(documents.files[number]), int(documents.lines[number])
                found.append((int(documents.keys[number]), file, line))
                assert text == f"{file}:{line} ".encode() * (line % 3 + 1)
                assert names_of(documents.labels[number]) == (f"source {line % 2}", None)
                assert documents.fast[number] == (line % 2 == 0)
        assert found == sorted(places)


def test_as_few_runs_as_will_do_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    merged = sorted_runs._merged
    monkeypatch.setattr(sorted_runs, "FAN_IN", 4)
    monkeypatch.setattr(
        sorted_runs, "_merged", lambda runs, *rest: copied.append(len(runs)) or merged(runs, *rest)
    )
    for most, expected in ((12, []), (11, [2]), (9, [4]), (5, [2, 4, 4]), (1, [3, 4, 4, 4])):
        copied.clear()
        writer = RunWriter(tmp_path, f"run-{most}", run_bytes=1)
        for file in range(12):
            writer.add(CATALAN, held(file, [file, 1000 - file]))
        assert len(writer.finish(most, nothing)) == most
        assert copied == expected


def test_the_runs_of_all_tasks_together_are_few(
    tmp_path: Path, corpus_files: list[Path], small_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_pass, "MOST_RUNS", 4)
    monkeypatch.setattr(first_pass, "_TOGETHER_BYTES", 1)
    monkeypatch.setattr(RunWriter.__init__, "__defaults__", (2_000,))
    lines = [line for path in corpus_files for line in path.read_bytes().splitlines(keepends=True)]
    for number, line in enumerate(lines):
        (tmp_path / f"small-{number:03d}.jsonl").write_bytes(line)
    files = [*corpus_files, *sorted(tmp_path.glob("small-*"))]
    job = tokenize_job(files, small_tokenizer, tmp_path / "out")
    tasks = first_pass.input_groups(job, list(files))
    assert [file.path for task in tasks for file in task] == files
    assert len(tasks) <= 2 * 4 + len(corpus_files)
    (tmp_path / "scratch").mkdir()
    counters = WorkerPool(1, None).counters
    surveys = [first_pass.survey_files(job, tmp_path / "scratch", counters, task) for task in tasks]
    runs = [run for survey in surveys for run in survey.runs]
    assert len(runs) <= 4 + len(tasks)
    assert sum(run.documents for run in runs) == 2 * len(lines)


@pytest.mark.parametrize("size", [1, 500, 10**9])
def test_the_front_of_the_order_does_not_depend_on_the_runs(tmp_path: Path, size: int) -> None:
    keys = np.random.default_rng(0).integers(0, KEY_RANGE, 300, dtype=np.uint64).tolist()
    fronts = []
    for run_bytes in (1, 10**9):
        writer = RunWriter(tmp_path, f"run-{run_bytes}", run_bytes)
        for start in range(0, 300, 10):
            writer.add(CATALAN, held(0, keys[start : start + 10], first_line=start + 1))
        runs = writer.finish(300, nothing)
        whole = next(all_of(runs, CATALAN)).texts
        front = [
            text for part in first_documents(runs, CATALAN, sum(map(len, whole)), size) for text in part.texts
        ]
        assert front == whole[: len(front)]
        assert sum(map(len, front)) >= min(size, sum(map(len, whole)))
        fronts.append(front)
    assert fronts[0] == fronts[1]


def text_sizes(runs: list[Run], bounds: tuple[int, ...]) -> list[int]:
    with RangeReader(runs, CATALAN, bounds) as reader:
        return [sum(map(len, reader.part(part).texts)) for part in range(len(bounds) - 1)]


@given(
    keys=st.lists(st.integers(0, 3) | st.integers(0, KEY_RANGE - 1), min_size=1, max_size=60),
    shards=st.integers(1, 70),
)
@settings(max_examples=100, deadline=None)
def test_no_shard_is_empty_and_all_differ_by_a_document(
    tmp_path_factory: pytest.TempPathFactory, keys: list[int], shards: int
) -> None:
    writer = RunWriter(tmp_path_factory.mktemp("runs"), "run", run_bytes=1)
    for start in range(0, len(keys), 7):
        writer.add(CATALAN, held(0, keys[start : start + 7], first_line=start + 1))
    runs = writer.finish(100, nothing)
    bounds = shard_bounds(runs, CATALAN, shards)
    assert bounds[0] == 0 and bounds[-1] == KEY_RANGE and sorted(set(bounds)) == list(bounds)
    assert len(bounds) <= shards + 1
    sizes = text_sizes(runs, bounds)
    assert min(sizes) > 0
    share, longest = sum(sizes) / shards, 3 * len("0:60 ")
    if len(set(keys)) == len(keys):
        assert all(size <= share + longest for size in sizes)
        if share > longest:
            assert len(sizes) == shards and all(size >= share - longest for size in sizes)


def test_many_documents_are_divided_by_their_keys_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_MANY_DOCUMENTS", 100)
    keys = np.random.default_rng(0).integers(0, KEY_RANGE, 500, dtype=np.uint64).tolist()
    writer = RunWriter(tmp_path, "run")
    writer.add(CATALAN, held(0, keys))
    runs = writer.finish(1, nothing)
    assert shard_bounds(runs, CATALAN, 5) == even_bounds(5)
    assert shard_bounds(runs, CATALAN, 6) != even_bounds(6)


def damage(path: Path, offset: int, new: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(new)


@pytest.mark.parametrize(
    ("offset", "new"),
    [
        (7, b"\xff"),  # a key
        (8 * 6 + 1, b"\xff"),  # the start of a record
        (8 * 6 + 8 + 1, b"\xff"),  # the bytes of a text
    ],
)
def test_a_damaged_run_is_an_error_that_names_the_scratch_directory(
    tmp_path: Path, offset: int, new: bytes
) -> None:
    writer = RunWriter(tmp_path, "run")
    writer.add(CATALAN, held(0, [KEY_RANGE // 8 * number for number in range(6)]))
    [run] = writer.finish(1, nothing)
    assert sum(len(documents.texts) for documents in all_of([run], CATALAN, 4)) == 6
    damage(run.path, offset, new)
    with pytest.raises(DataError, match=r"cannot be used: .*\n.*--scratch"):
        list(all_of([run], CATALAN, 4))


def test_a_truncated_or_missing_run_is_an_error(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, "run")
    writer.add(CATALAN, held(0, [1, 2, 3]))
    [run] = writer.finish(1, nothing)
    run.path.write_bytes(run.path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"run-000001: .* bytes, .* were written"):
        list(all_of([run], CATALAN))
    run.path.unlink()
    with pytest.raises(DataError, match=r"run-000001: .*No such file"):
        list(all_of([run], CATALAN))


def test_merging_ends_when_it_is_told_to(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    writer = RunWriter(tmp_path, "run", run_bytes=1)
    for file in range(3):
        writer.add(CATALAN, held(file, [1, 2]))
    with pytest.raises(KeyboardInterrupt):
        writer.finish(1, stop)
