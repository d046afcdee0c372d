"""Whatever is done to a file, who reads it gives what was written, or one sentence.

``SALAMANDRA_FUZZ_EXAMPLES=20000 pytest tests/data_prep/test_fuzzed_files.py`` looks longer; by default each kind of
file is changed a few dozen times.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
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


READ_MODELS = """
import sys
from pathlib import Path
from salamandra_data.errors import DataError
from salamandra_data.tokenization import Encoder
from salamandra_data.tokenization.backends import choose_encoder

print("ready", flush=True)
for line in sys.stdin:
    path = Path(line.rstrip("\\n"))
    try:
        encoder = Encoder(path)
        choose_encoder("auto", encoder, path, path.parent)
        for row in encoder.encode_rows(["bon dia, l·l 日本".encode(), b""]).split():
            encoder.decode(row)
        answer = "read"
    except DataError as error:
        answer = "refused" if path.stem in str(error) else f"does not name the file: {error}"
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    print(answer.replace("\\n", " "), flush=True)
"""


class ModelReader:
    """A process that reads models one after the other: what fails in a library of C++ ends a process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, path: Path) -> str:
        """What it answers; how it ended, or that it hung, if it does not."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", READ_MODELS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
            if (ready := self._answer()) != "ready":
                return ready
        assert self._process.stdin is not None
        self._process.stdin.write(f"{path}\n".encode())
        return self._answer()

    def _answer(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], 300)[0]:
            self.close()
            return "no answer in 300 seconds"
        if line := self._process.stdout.readline():
            return line.decode().strip()
        code = self._process.wait(60)
        self._process = None
        return f"ended with {code}"

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture(scope="module")
def models() -> Iterator[ModelReader]:
    """One for all models of the module."""
    reader = ModelReader()
    yield reader
    reader.close()


@given(changes=CHANGES)
@example(changes=[("over", 0.75, b"\0")])  # in the text of the normalization rules
@FUZZED
def test_tokenizer_models(
    tmp_path_factory: pytest.TempPathFactory,
    small_tokenizer: Path,
    models: ModelReader,
    changes: list[Change],
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.model"
    path.write_bytes(changed(small_tokenizer.read_bytes(), changes))
    assert models.read(path) in ("read", "refused")


def test_a_model_with_a_piece_that_is_no_text_is_refused(
    tmp_path: Path, small_tokenizer: Path, models: ModelReader
) -> None:
    """SentencePiece opens it, and fails at the first text that holds the piece."""
    whole = small_tokenizer.read_bytes()
    assert b"\xe2\x96\x81d" in whole
    (tmp_path / "broken.model").write_bytes(whole.replace(b"\xe2\x96\x81d", b"\xe2d\x81d"))
    assert models.read(tmp_path / "broken.model") == "refused"


def test_a_whole_model_is_read(small_tokenizer: Path, models: ModelReader) -> None:
    assert models.read(small_tokenizer) == "read"
