"""Files of tasks give back what was saved, and execute nothing, whatever stands in them."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from execution_tasks import WriteSquare
from tokenize_job import tokenize_job

from megatron_salamandra.foundation.own_sums import with_own_sum
from salamandra_data.errors import DataError
from salamandra_data.execution import Stage
from salamandra_data.execution.stage import StageRecord
from salamandra_data.execution.task_file import ArrayTasks
from salamandra_data.readers import DocumentKeys
from salamandra_data.storage import RemotePath
from salamandra_data.tokenization.driver import EncodePass, ReadPass
from salamandra_data.tokenization.first_pass import InputFile
from salamandra_data.tokenization.job_directory import JobDirectory


def tasks(run: Any, directory: Path) -> ArrayTasks:
    stage = Stage("read", 7, run)
    return ArrayTasks(stage, StageRecord.of(stage, directory), None, (1, 5), 3)


def test_passes_come_back_as_they_were(tmp_path: Path) -> None:
    job = tokenize_job(
        [tmp_path / "a $HOME.jsonl"], tmp_path / "m", tmp_path / "o", DocumentKeys(language="ca")
    )
    files = (InputFile(0, tmp_path / "a", 5, 0.5), InputFile(1, RemotePath("https://me:pw@h/b"), 6, 0.5))
    for run in (
        ReadPass(job, JobDirectory(tmp_path), [files], True),
        EncodePass(job, JobDirectory(tmp_path), [file.path for file in files]),
    ):
        saved = tasks(run, tmp_path)
        saved.save(tmp_path / "tasks.json")
        loaded = ArrayTasks.load(tmp_path / "tasks.json", [])
        assert loaded == saved
        assert loaded.stage.run.job.report() == job.report()  # type: ignore[attr-defined]
        assert loaded.stage.run.job.identity() == job.identity()  # type: ignore[attr-defined]
        assert stat.S_IMODE((tmp_path / "tasks.json").stat().st_mode) == 0o600


def test_classes_of_others_need_to_be_named(tmp_path: Path) -> None:
    file = tmp_path / "tasks.json"
    tasks(WriteSquare(tmp_path), tmp_path).save(file)
    assert ArrayTasks.load(file, ["execution_tasks"]).stage.run == WriteSquare(tmp_path)
    with pytest.raises(
        DataError, match=r"tasks\.json: is no file of tasks: execution_tasks:WriteSquare is not of"
    ):
        ArrayTasks.load(file, [])


@dataclass(frozen=True)
class Around:
    """A stage of this module that holds values of others."""

    inner: object

    def __call__(self, task: int) -> None:
        """Does nothing."""


class Pair(NamedTuple):
    """Two of something."""

    one: object
    two: object


class Colour(Enum):
    """No class of fields."""

    RED = 1


class Level(int):
    """Looks like a number, and would come back as one."""


def print_nothing(task: int) -> None:
    """A function, which JSON cannot hold."""


def test_packages_of_all_classes_are_named_however_deep(tmp_path: Path) -> None:
    file = tmp_path / "tasks.json"
    run = Around([{"a": (Pair(1, WriteSquare(tmp_path)),)}])
    packages = tasks(run, tmp_path).save(file)
    assert packages == sorted(["execution_tasks", __name__.partition(".")[0]])
    assert ArrayTasks.load(file, packages).stage.run == run
    assert tasks(tokenize_job([], tmp_path, tmp_path, DocumentKeys(language="ca")), tmp_path).save(file) == []


@pytest.mark.parametrize(
    ("value", "place", "kind"),
    [
        (print_nothing, "", "function"),
        ({1, 2}, "", "set"),
        ([1, b"bytes"], r"\[1\]", "bytes"),
        ({"a": [Colour.RED]}, r"\['a'\]\[0\]", "Colour"),
        (Pair(1, (1 + 2j,)), r"\.two\[0\]", "complex"),
        (Level(3), "", "Level"),
        ({frozenset(): 1}, "", "frozenset"),
    ],
)
def test_what_cannot_be_written_is_named_with_its_place(
    tmp_path: Path, value: object, place: str, kind: str
) -> None:
    with pytest.raises(
        DataError, match=rf"tasks\.stage\.run\.inner{place}: .*{kind} cannot be part of a file"
    ):
        tasks(Around(value), tmp_path).save(tmp_path / "tasks.json")
    assert not (tmp_path / "tasks.json").exists()


def test_a_class_that_a_task_could_not_find_is_refused(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Local:
        number: int

    with pytest.raises(DataError, match=r"run\.inner: .*Local cannot be found by its name"):
        tasks(Around(Local(1)), tmp_path).save(tmp_path / "tasks.json")


@pytest.mark.parametrize("before", [None, 0o644])
def test_nobody_else_can_read_it_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int | None
) -> None:
    file = tmp_path / "tasks.json"
    if before is not None:
        file.touch()
        file.chmod(before)
    seen: list[int] = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        sync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        seen.append(stat.S_IMODE(os.stat(source).st_mode))
        replace(source, target)
        seen.append(stat.S_IMODE(os.stat(target).st_mode))

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    monkeypatch.setattr(os, "chmod", lambda *_: pytest.fail("too late"))
    mask = os.umask(0)
    try:
        tasks(WriteSquare(tmp_path), tmp_path).save(file)
    finally:
        os.umask(mask)
    assert seen == [0o600] * 3


@pytest.mark.parametrize(
    "value",
    [
        {"class": "os:system", "fields": {"command": "touch executed"}},
        {"class": "subprocess:Popen", "fields": {"args": ["touch", "executed"]}},
        {
            "class": "salamandra_data.execution.slurm:subprocess.Popen",
            "fields": {"args": ["touch", "executed"]},
        },
        {"class": "salamandra_data.execution.slurm:subprocess", "fields": {}},
        {"class": "salamandra_data.storage:RemotePath", "fields": {"url": "x"}},
        {"class": "salamandra_data.execution.executors:run_stages", "fields": {}},
        {"class": "salamandra_data.execution.worker_pool:WorkerPool", "fields": {"workers": 1, "state": 0}},
        {"class": "salamandra_data.nothing:Here", "fields": {}},
        {"class": 5, "fields": {}},
        {"class": "salamandra_data.execution.stage:Stage"},
        {"class": "salamandra_data.execution.stage:Stage", "fields": []},
        {"dict": 3},
        [],
        7,
        None,
    ],
)
def test_nothing_else_is_made_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "tasks.json"
    file.write_bytes(with_own_sum((json.dumps({"tasks": value}, indent=1) + "\n").encode()))
    with pytest.raises(DataError, match=r"tasks\.json"):
        ArrayTasks.load(file, [])
    assert not (tmp_path / "executed").exists()


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tasks.json"
    tasks(WriteSquare(tmp_path), tmp_path).save(file)
    whole = file.read_bytes()
    for place in range(0, len(whole), 17):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 2]) + whole[place + 1 :])
        with pytest.raises(DataError, match=r"tasks\.json"):
            ArrayTasks.load(file, ["execution_tasks"])
