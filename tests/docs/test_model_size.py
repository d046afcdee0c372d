"""What the page on model sizes says about its example."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

from followed_page import FollowedPage
from pages import REPOSITORY, blocks

PAGE = REPOSITORY / "docs/how-to/add-a-model-size.md"


def test_the_size_of_the_page_has_the_printed_parameters_and_its_first_loss_is_near_ln_v(
    follow: Callable[[Path], FollowedPage],
) -> None:
    page = follow(PAGE)
    directory = page.directory
    settings = next(block for block in blocks(PAGE) if block.file_name is not None)
    (printed,) = [block.text for block in blocks(PAGE) if block.language == "text"]
    assert printed.strip() in page.printed[1]
    count = int(re.sub(r"\D", "", printed.partition(":")[2]))
    size = {key: int(value) for key, value in re.findall(r"^  (\w+): (\d+)", settings.text, re.M)}
    v, h, f = size["vocab_size"], size["hidden_size"], size["ffn_hidden_size"]
    heads, groups = size["attention_heads"], size["query_groups"]
    layer = h * h + h * (h // heads) * (heads + 2 * groups) + 3 * h * f + 2 * h
    assert count == 2 * v * h + size["layers"] * layer + h

    metrics = (directory / "runs/salamandra-6m/metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in metrics]
    assert len(losses) == 2
    assert abs(losses[0] - math.log(v)) < 0.2
    assert f"{math.log(v):.2f}" in PAGE.read_text()
