"""A quick start deletes nothing that it did not make."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_salamandra.quickstart import QuickstartError, QuickstartJob, quickstart, run_quickstart
from megatron_salamandra.quickstart.stage_book import Stage, StageBook

FOREIGN = (
    "corpus/mine.jsonl",
    "tokenizer/mine.model",
    "shards/mine.bin",
    "run/mine.pt",
    "hf/mine",
    "notes.txt",
)


class ReachedTheStages(Exception):
    """Raised in place of the work."""


@pytest.fixture(autouse=True)
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise ReachedTheStages

    monkeypatch.setattr(StageBook, "run", stop)


def fill(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(name)


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def job(out: Path, *, fresh: bool = False) -> QuickstartJob:
    return QuickstartJob(out=out, ranks=1, fresh=fresh, overrides=("platform=host",))


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("book", [None, "{", "{}", "[]", '{"build": {"image": "x"}}', '{"build": 1}'])
def test_a_directory_of_somebody_else_is_refused_untouched(
    tmp_path: Path, book: str | None, fresh: bool
) -> None:
    fill(tmp_path, *FOREIGN, "downloads/package.whl")
    if book is not None:
        (tmp_path / "stages.json").write_text(book)
    before = files(tmp_path)
    with pytest.raises(QuickstartError, match=r"holds corpus, hf(.|\n)*remedy: --out"):
        run_quickstart(job(tmp_path, fresh=fresh))
    assert files(tmp_path) == before


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "out")
    with pytest.raises(QuickstartError, match="not a directory"):
        run_quickstart(job(tmp_path / "out"))


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("present", [(), ("downloads/package.whl",)])
def test_a_new_directory_may_hold_downloads(tmp_path: Path, present: tuple[str, ...], fresh: bool) -> None:
    fill(tmp_path, *present)
    with pytest.raises(ReachedTheStages):
        run_quickstart(job(tmp_path, fresh=fresh))
    assert files(tmp_path) == set(present)


def test_fresh_deletes_what_stages_make_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    fill(tmp_path, "corpus/ca.jsonl", "run/config.yaml", "report.json", "blend.yaml", "logits.json")
    StageBook(tmp_path, 1).run(Stage("corpus", "corpus", {"value": 1}, [], lambda: None))
    fill(tmp_path, "notes.txt", "other/data.bin", "downloads/package.whl")
    monkeypatch.setattr(quickstart, "StageBook", stopping_book)
    with pytest.raises(ReachedTheStages):
        run_quickstart(job(tmp_path, fresh=True))
    assert files(tmp_path) == {"notes.txt", "other/data.bin", "downloads/package.whl"}


def stopping_book(*_: object) -> None:
    raise ReachedTheStages
