"""Whatever is done to a file, who reads it gives what was written, or one sentence.

``SALAMANDRA_FUZZ_EXAMPLES=20000 pytest tests/data_prep/test_fuzzed_files.py`` looks longer; by default each kind of
file is changed a few dozen times.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from synthetic_blend import write_blend

from megatron_salamandra.config import load_run_config
from megatron_salamandra.foundation.errors import UserError
from salamandra_data.blend_plan import BlendPlan
from salamandra_data.errors import DataError
from salamandra_data.readers import Document, DocumentFile, DocumentKeys, Malformed
from salamandra_data.shards import IndexedShard, ShardManifest
from salamandra_data.tokenization import Encoder
from salamandra_data.tokenization.backends import choose_encoder

CONFIGS = Path(__file__).parents[2] / "configs"
FUZZED = settings(
    max_examples=int(os.environ.get("SALAMANDRA_FUZZ_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
Change = tuple[str, float, bytes]

PIECES = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from(
        [
            b"\0",
            b"\n",
            b"{",
            b"[",
            b"]",
            b'"',
            b": ",
            b"- ",
            b"*a",
            b"&a ",
            b"!!python/object:os.system ",
            b"<<: ",
            b"\xff" * 8,
            b"\0" * 8,
            b"\x7f\xff\xff\xff",
            b"1e999",
            b"-1",
            b"NaN",
            b"9" * 5000,
            b"\\ud800",
            b"\xed\xa0\x80",
        ]
    ),
)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["over", "insert", "delete", "cut", "twice"]),
        st.floats(0, 1, exclude_max=True),
        PIECES,
    ),
    min_size=1,
    max_size=4,
)


def changed(whole: bytes, changes: Sequence[Change]) -> bytes:
    """The contents after each change in turn, at a share of their length."""
    for kind, share, piece in changes:
        place = int(share * len(whole))
        before, after = whole[:place], whole[place:]
        whole = {
            "over": before + piece + after[len(piece) :],
            "insert": before + piece + after,
            "delete": before + after[len(piece) :],
            "cut": before,
            "twice": before + after[:64] + after,
        }[kind]
    return whole


@pytest.fixture(scope="module")
def blend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of shards and their plan."""
    directory = tmp_path_factory.mktemp("blend")
    write_blend(directory)
    return directory


def refused_or(path: Path, read: Callable[[], object], expected: object) -> None:
    """Reading gives ``expected``, or a sentence that names the file."""
    try:
        found = read()
    except UserError as error:
        assert str(error) and len(str(error)) < 100_000
        assert path.stem in str(error), error
    else:
        assert found == expected


@given(changes=CHANGES)
@example(changes=[("cut", 0.5, b" ")])
@example(changes=[("cut", 0.9, b" ")])
@example(changes=[("cut", 0.9653, b" ")])  # all but the line of the checksum
@FUZZED
def test_plans(blend: Path, changes: list[Change]) -> None:
    whole, path = (blend / "blend.yaml").read_bytes(), blend / "fuzzed.yaml"
    path.write_bytes(changed(whole, changes))
    for load in (BlendPlan.load, BlendPlan.parse):
        refused_or(path, lambda load=load: load(path), BlendPlan.load(blend / "blend.yaml"))  # type: ignore[misc]


@given(changes=CHANGES)
@FUZZED
def test_manifests(blend: Path, changes: list[Change]) -> None:
    whole = (blend / "ca-train-00000.json").read_bytes()
    path = blend / "fuzzed.json"
    path.write_bytes(changed(whole, changes))
    refused_or(
        path, lambda: ShardManifest.load(blend / "fuzzed"), ShardManifest.load(blend / "ca-train-00000")
    )


@given(changes=CHANGES)
@FUZZED
def test_indexes(blend: Path, changes: list[Change]) -> None:
    """What only looks at the index's own numbers must not read outside the files either."""
    real, path = IndexedShard.open(blend / "ca-train-00000"), blend / "fuzzed.idx"
    path.write_bytes(changed((blend / "ca-train-00000.idx").read_bytes(), changes))
    shutil.copyfile(blend / "ca-train-00000.bin", blend / "fuzzed.bin")

    def documents() -> list[list[int]]:
        shard = IndexedShard.open(blend / "fuzzed")
        shard.check_structure()
        return [shard.document(number).tolist() for number in range(shard.documents)]

    refused_or(path, documents, [real.document(number).tolist() for number in range(real.documents)])
    sha256 = ShardManifest.load(blend / "ca-train-00000").idx_sha256
    refused_or(path, lambda: IndexedShard.open(blend / "fuzzed").check_index(sha256), None)


LINES = "".join(
    json.dumps({"text": text, "language": "ca", "source": "web", "n": [1, {"a": None}]}, ensure_ascii=ascii)
    + "\n"
    for text in ("bon dia", 'l·l "ç" \\ 日本', "", "x" * 1500)
    for ascii in (True, False)
).encode()


@given(changes=CHANGES)
@FUZZED
def test_json_lines(tmp_path_factory: pytest.TempPathFactory, changes: list[Change]) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.jsonl"
    path.write_bytes(changed(LINES, changes))
    try:
        entries = list(DocumentFile(path, DocumentKeys(language_key="language")))
    except DataError as error:
        assert "fuzzed" in str(error)
        return
    assert [entry.line for entry in entries] == sorted({entry.line for entry in entries})
    for entry in entries:
        assert isinstance(entry, Document | Malformed)
        if isinstance(entry, Document):
            assert entry.text.decode() == entry.string
        else:
            assert entry.reason and len(entry.reason) < 1000


@given(name=st.sampled_from(sorted(path.name for path in CONFIGS.glob("*.yaml"))), changes=CHANGES)
@FUZZED
def test_configurations(tmp_path_factory: pytest.TempPathFactory, name: str, changes: list[Change]) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(changed((CONFIGS / name).read_bytes(), changes))
    try:
        load_run_config(str(path))
    except UserError as error:
        assert error.exit_code == 2 and str(error)


@given(changes=CHANGES)
@FUZZED
def test_tokenizer_models(
    tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Path, changes: list[Change]
) -> None:
    """In a process of its own, because what fails in a library of C++ ends it."""
    path = tmp_path_factory.getbasetemp() / "fuzzed.model"
    path.write_bytes(changed(small_tokenizer.read_bytes(), changes))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            encoder = Encoder(path)
            choose_encoder("auto", encoder, path, path.parent)
            for row in encoder.encode_rows(["bon dia, l·l 日本".encode(), b""]).split():
                encoder.decode(row)
            code = 0
        except DataError as error:
            code = 0 if "fuzzed" in str(error) else 3
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
