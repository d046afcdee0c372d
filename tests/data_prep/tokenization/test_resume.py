"""The same command after an interruption reads nothing twice, makes no shard twice, and leaves the same files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from tokenize_job import tokenize_job

from megatron_salamandra.foundation.options import Option
from salamandra_data.errors import DataError
from salamandra_data.execution import WorkerDied
from salamandra_data.tokenization import TokenizeJob, first_pass, tokenize_documents
from salamandra_data.tokenization.driver import EncodePass, ReadPass
from salamandra_data.tokenization.job_directory import job_identity

LANGUAGES = ("ca", "eu", "gl")


@pytest.fixture
def job(tmp_path: Path, small_tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> TokenizeJob:
    """Three files, each a task of its own, with a malformed line in the first."""
    monkeypatch.setattr(first_pass, "_TOGETHER_BYTES", 1)
    monkeypatch.setattr(first_pass, "MOST_RUNS", 1000)
    (tmp_path / "in").mkdir()
    for language in LANGUAGES:
        lines = [json.dumps({"text": f"{language} {n} text", "language": language}) for n in range(200)]
        bad = ["{}"] if language == "ca" else []
        (tmp_path / "in" / f"{language}.jsonl").write_text("\n".join([*bad, *lines]) + "\n")
    return tokenize_job([tmp_path / "in"], small_tokenizer, tmp_path / "out", skip_malformed=True)


def files_in(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def interrupted(
    monkeypatch: pytest.MonkeyPatch, step: type[ReadPass | EncodePass], after: int, error: BaseException
) -> list[Any]:
    """Make a pass fail at its unit number ``after`` + 1; the list gets the units that it does."""
    real: Callable[..., Any] = step.do
    calls: list[Any] = []

    def do(self: Any, counters: Any, unit: Any) -> Any:
        if len(calls) == after:
            raise error
        calls.append(unit)
        return real(self, counters, unit)

    monkeypatch.setattr(step, "do", do)
    return calls


@pytest.mark.parametrize(("step", "read_before"), [(ReadPass, 1), (EncodePass, 3)])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), WorkerDied("killed")], ids=["Ctrl-C", "killed worker"]
)
def test_an_interrupted_command_goes_on(
    job: TokenizeJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: type[ReadPass | EncodePass],
    read_before: int,
    error: BaseException,
) -> None:
    tokenize_documents(job.model_copy(update={"out": tmp_path / "whole"}))
    with monkeypatch.context() as patch:
        interrupted(patch, step, 1, error)
        with pytest.raises(type(error)):
            tokenize_documents(job)
    with monkeypatch.context() as patch:
        read = interrupted(patch, ReadPass, 99, error)
        tokenize_documents(job)
    assert len(read) == len(LANGUAGES) - read_before
    assert [path for path in job.out.iterdir() if path.is_dir()] == []
    found, whole = files_in(job.out), files_in(tmp_path / "whole")
    assert found.keys() == whole.keys() and len(found) == 3 * len(LANGUAGES) + 2
    assert {name for name in found if found[name] != whole[name]} == set()


def test_input_that_changed_since_is_read_again(job: TokenizeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupted(patch, EncodePass, 0, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            tokenize_documents(job)
    (left,) = [path for path in job.out.iterdir() if path.is_dir()]
    with open(Path(job.documents.input[0]) / "eu.jsonl", "a") as stream:
        stream.write('{"text": "bat gehiago", "language": "eu"}\n')
    with monkeypatch.context() as patch:
        read = interrupted(patch, ReadPass, 99, KeyboardInterrupt())
        result = tokenize_documents(job)
    assert len(read) == len(LANGUAGES) and not left.exists()
    assert {group.language: group.documents for group in result.groups}["eu"] == 201


def test_an_error_leaves_nothing_behind(job: TokenizeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupted(patch, ReadPass, 2, DataError("no space left"))
        with pytest.raises(DataError, match="no space left"):
            tokenize_documents(job)
    assert list(job.out.iterdir()) == []


class LaterJob(TokenizeJob):
    """A job of a version with one more option."""

    further: Annotated[int, Option("what came later")] = 3


def test_a_started_job_is_known_by_what_was_given(job: TokenizeJob) -> None:
    def identity(**changes: Any) -> str:
        kind = LaterJob if "further" in changes else TokenizeJob
        given = {**{name: getattr(job, name) for name in TokenizeJob.model_fields}, **changes}
        return job_identity(kind(**given), [], "sha256")

    assert identity(encoder="auto", shard_tokens=1 << 28, further=3, scratch=job.out / "other") == identity()
    others = [identity(seed=1), identity(further=4), identity(out=job.out / "x"), identity(guard_share=0.1)]
    assert len({identity(), *others}) == 5


def test_what_passes_leave_for_each_other_is_json(job: TokenizeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupted(patch, EncodePass, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            tokenize_documents(job)
    found = [path for path in job.out.rglob("found/*") if path.is_file()]
    surveys = {f"survey-{number:06d}.json" for number in range(len(LANGUAGES))}
    assert {path.name for path in found} == {"plan.json", "encoder.json", *surveys}
    assert all(isinstance(json.loads(path.read_bytes()), dict) for path in found)
    (plan,) = [path for path in found if path.name == "plan.json"]
    assert "runs" in json.loads(plan.read_bytes())


def test_damaged_work_is_an_error_that_says_what_to_remove(
    job: TokenizeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupted(patch, EncodePass, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            tokenize_documents(job)
    (survey,) = job.out.rglob("found/survey-000001.json")
    survey.write_bytes(survey.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"survey-000001\.json: is damaged.*\n.*start again"):
        tokenize_documents(job)
