"""Malformed files of runs, checkpoints and exports: read as what they say, or refused in words; never a crash.

``SALAMANDRA_FUZZ_EXAMPLES`` says how many are tried of each kind; ``make fault-campaign`` tries many more.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_checkpoints import make_config, make_weights, train_tokenizer, write_step

from megatron_salamandra import cli
from megatron_salamandra.checkpoint import StoredTensors, load_metadata
from megatron_salamandra.cluster import RoundBook
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.hf import load_export
from megatron_salamandra.hf.tokenizer import convert_tokenizer
from megatron_salamandra.run_directory import (
    Incident,
    MetricsLog,
    check_same_model,
    read_events,
    read_incident,
    read_manifest,
    read_state,
    write_incident,
)
from megatron_salamandra.timeline import trained_steps

EXAMPLES = int(os.environ.get("SALAMANDRA_FUZZ_EXAMPLES", "40"))
Spoil = Callable[[bytes], bytes]


@st.composite
def spoilt(draw: st.DrawFn, contents: bytes) -> bytes:
    """Bytes with a few parts flipped, cut out, doubled or replaced."""
    result = bytearray(contents)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(result) - 1)))
        length = draw(st.sampled_from((1, 1, 2, 4, 8, 40, 400)))
        way = draw(st.sampled_from(("flip", "cut", "double", "replace", "truncate")))
        if way == "flip" and result:
            result[start] ^= 1 << draw(st.integers(0, 7))
        elif way == "cut":
            del result[start : start + length]
        elif way == "double":
            result[start:start] = result[start : start + length]
        elif way == "replace":
            result[start : start + length] = draw(st.binary(max_size=8)) or b"9" * length
        elif way == "truncate":
            del result[start:]
    return bytes(result)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One intact file of each kind, and an export."""
    root = tmp_path_factory.mktemp("intact")
    config = make_config(layers=1)
    step = write_step(root / "step-00000020", config, make_weights(config), train_tokenizer(root))
    assert cli.main(["hf", "export", "--checkpoint", str(step), "--out", str(root / "exported")]) == 0
    place = root / "incidents"
    write_incident(place, Incident(1, 5, "spike", "skip", "why", 3.5, 2.0, (16, 19), [{"sample": 16}]))
    lines = [{"step": n, "loss": 1.5, "event": "skip", "time": ""} for n in range(4)]
    (root / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    state = json.loads((step / "state.json").read_text())
    segment = {"phase": 0, "steps": 20, "first_sample": 0, "batch_size": 2, "sequence_length": 64}
    state |= {"position": {"phases": ["main"], "segments": [segment]}, "callbacks": {"Guard": {"acted": []}}}
    (step / "state.json").write_text(json.dumps(state))
    return root


def read_whole_state(path: Path) -> None:
    state = read_state(path.parent)
    assert isinstance(state.step, int)
    assert isinstance(state.ledger, list) and isinstance(state.callbacks, dict)
    with contextlib.suppress(ValueError):  # which a resume tells with the directory
        trained_steps(state.values)


def read_metadata(path: Path) -> None:
    metadata = load_metadata(path)
    for key in StoredTensors(path.parent.parent).names[:2] if metadata else ():
        StoredTensors(path.parent.parent).read(key)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "manifest": ("step-00000020/manifest.json", lambda path: read_manifest(path.parent)),
    "state": ("step-00000020/state.json", read_whole_state),
    "configuration": (
        "step-00000020/config.yaml",
        lambda path: check_same_model(path.parent, make_config(layers=1).model.computation()),
    ),
    "metadata": ("step-00000020/shards/.metadata", read_metadata),
    "tokenizer": ("step-00000020/tokenizer.model", convert_tokenizer),
    "incident": ("incidents/0001-step-00000005.json", lambda path: read_incident(path.parent, 1)),
    "metrics": ("lines.jsonl", lambda path: MetricsLog(path).read()),
    "events": ("lines.jsonl", read_events),
    "rounds": ("rounds.jsonl", lambda path: RoundBook(path.parent).read()),
    "exported configuration": ("exported/config.json", lambda path: _load(path.parent)),
    "exported weights": ("exported/model.safetensors", lambda path: _load(path.parent)),
    "exported tokenizer": ("exported/tokenizer.json", lambda path: _load(path.parent)),
}
_SLOW = ("tokenizer", "exported configuration", "exported weights", "exported tokenizer")


def _load(directory: Path) -> object:
    return load_export(directory, device=torch.device("cpu"))


@pytest.mark.parametrize("kind", READERS)
def test_a_malformed_file_is_read_or_refused_in_words(files: Path, tmp_path: Path, kind: str) -> None:
    name, read = READERS[kind]
    source = files / name
    contents = source.read_bytes() if source.exists() else b'{"number": 1, "began": {}, "outcome": null}\n'
    place = tmp_path / name
    if kind.startswith("exported"):
        shutil.copytree(source.parent, place.parent)
    elif kind != "tokenizer" and "/" in name:
        beside = name.split("/")[0]
        shutil.copytree(files / beside, tmp_path / beside)
    place.parent.mkdir(parents=True, exist_ok=True)

    @settings(
        max_examples=max(4, EXAMPLES // 8) if kind in _SLOW else EXAMPLES,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(spoilt(contents))
    def attempt(malformed: bytes) -> None:
        place.write_bytes(malformed)
        try:
            read(place)
        except UserError as error:
            assert str(tmp_path) in str(error)

    attempt()
