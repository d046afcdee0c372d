"""The page of a plan: it says what the plan says, needs nothing else, and its schedule is the simulated one."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from megatron_salamandra.cli import main
from megatron_salamandra.cluster import load_profile
from megatron_salamandra.config import load_run_config
from megatron_salamandra.forecast import forecast_run, pipeline_replay

KEYS = ["parallel.pipeline=4", "parallel.virtual_pipeline=2"]


class Rectangles(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.drawing, self.widths = "", {"schedule of the pipeline": [], "memory of each pipeline rank": []}  # type: ignore[var-annotated]
        self.links = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "svg":
            self.drawing = values.get("aria-label") or ""
        if tag == "rect" and self.drawing in self.widths:
            self.widths[self.drawing].append(float(values["width"] or 0))
        self.links += tag in ("script", "link", "img", "iframe")


def test_the_page_shows_memory_schedule_and_layouts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.html"
    arguments = ["plan", "salamandra-40b", *KEYS, "--cluster", "marenostrum5", "--nodes", "256"]
    assert main([*arguments, "--html", str(out)]) == 0
    capsys.readouterr()
    page = Rectangles()
    text = out.read_text(encoding="utf-8")
    page.feed(text)
    assert page.links == 0 and "Content-Security-Policy" in text
    forecast = forecast_run(
        load_run_config("salamandra-40b", KEYS), load_profile("marenostrum5").machine, 1024
    )
    passes = pipeline_replay(forecast)
    assert len(page.widths["schedule of the pipeline"]) == len(passes) == 4 * 2 * 2 * 12
    last = max(one.end for one in passes)
    drawn = sum(page.widths["schedule of the pipeline"]) / 900
    assert drawn == pytest.approx(sum(one.end - one.start for one in passes) / last, rel=0.05)
    assert len(page.widths["memory of each pipeline rank"]) == 4 * 6
    assert f"{forecast.longest.step.total:.3f} s" in text and "Less memory for more time" in text


def test_without_a_pipeline_there_is_no_schedule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan.html"
    assert main(["plan", "salamandra-2b", "--cluster", "dgx-h100", "--nodes", "8", "--html", str(out)]) == 0
    capsys.readouterr()
    assert "Schedule of the pipeline" not in out.read_text(encoding="utf-8")
