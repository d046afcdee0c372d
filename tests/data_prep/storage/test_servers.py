"""Servers that tell no sizes or give whole objects only: text is read from them, shards and tables are refused."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from megatron_salamandra.cli import main
from salamandra_data.errors import DataError
from salamandra_data.readers import DocumentFile, DocumentKeys
from salamandra_data.shards import IndexedShard, ShardWriter, TokenizerIdentity
from salamandra_data.storage import RemotePath, retries, size_of
from salamandra_data.storage import location as location_module

IDENTITY = TokenizerIdentity("0" * 64, 100, 2)


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[str]:
    """A shard behind a URL, with a JSON-lines file beside it."""
    with ShardWriter(tmp_path / "ca-train-00000", language="ca", split="train", tokenizer=IDENTITY) as writer:
        for number in range(40):
            writer.add_document([5 + number, 2], utf8_bytes=3)
    filesystem = fsspec.filesystem("memory")
    for path in tmp_path.iterdir():
        filesystem.pipe_file(f"/served/{path.name}", path.read_bytes())
    yield "memory://served/ca-train-00000"
    filesystem.rm("/served", recursive=True)


def without_sizes(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(MemoryFileSystem, "size", lambda system, path: None)
    return "does not tell its size"


def without_parts(monkeypatch: pytest.MonkeyPatch) -> str:
    whole = MemoryFileSystem.cat_file
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda system, path, **part: whole(system, path))
    return "does not give parts of it"


@pytest.mark.parametrize("limit", [without_sizes, without_parts])
def test_every_command_says_in_one_sentence_what_the_server_lacks(
    shard: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    limit: Any,
) -> None:
    lacks = limit(monkeypatch)
    for name, arguments in {
        "verify": [shard],
        "inspect": [shard],
        "blend": ["--shards", shard, "--temperature", "1", "--out", str(tmp_path / "b.yaml")],
        "merge": [shard, "--out", str(tmp_path / "m")],
        "split": [shard, "--shards", "2", "--out", str(tmp_path / "s")],
    }.items():
        assert main(["data", name, *arguments]) == 1
        captured = capsys.readouterr()
        said = captured.out + captured.err
        assert f"{shard}.idx: the server {lacks}" in said and "copy them to a disk first" in said, name


class Handler(BaseHTTPRequestHandler):
    """Serves one content: in parts, whole only, whole without its size, or in parts that break off once."""

    content = b""
    kind = "parts"
    broken = 0
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        content, asked = self.content, self.headers.get("Range")
        if asked and self.kind == "parts":
            first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
            content = content[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(self.content)}")
        else:
            self.send_response(200)
        if self.kind in ("chunked", "breaks"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(content) if body else 0, 60_000):
                part = content[start : start + 60_000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                if self.kind == "breaks" and start > 3_000_000 and type(self).broken < 2:
                    type(self).broken += 1
                    self.close_connection = True
                    return
            self.wfile.write(b"0\r\n\r\n" if body else b"")
            return
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if body else b"")


class Server(ThreadingHTTPServer):
    """Without a word about clients that hang up, as readers of a part do."""

    def handle_error(self, *arguments: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*arguments)  # type: ignore[arg-type]


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server of 13 MB of JSON lines."""
    lines = [json.dumps({"text": f"{number} " + "x" * 1000, "language": "ca"}) for number in range(13_000)]
    Handler.content = "".join(line + "\n" for line in lines).encode()
    served = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()


@pytest.mark.parametrize("kind", ["parts", "whole", "chunked", "breaks"])
def test_json_lines_are_read_from_any_web_server(
    server: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(Handler, "kind", kind)
    monkeypatch.setattr(Handler, "broken", 0)
    fsspec.filesystem("http").invalidate_cache()
    path = RemotePath(f"{server}/a.jsonl")
    file = DocumentFile(path, DocumentKeys())
    texts = [document.text for document in file]  # type: ignore[union-attr]
    assert len(texts) == 13_000 and texts[-1].startswith(b"12999 x")
    assert file.consumed_bytes == len(Handler.content)
    assert Handler.broken == (2 if kind == "breaks" else 0)
    if kind in ("chunked", "breaks"):
        with pytest.raises(DataError, match="does not tell its size"):
            size_of(path)


class Stream:
    """A stream of an object, as fsspec opens it, that cannot be read in parts: ``fail_at`` bytes, then an error."""

    def __init__(self, content: bytes, fail_at: int | None, error: Exception) -> None:
        self.content, self.fail_at, self.error, self.position = content, fail_at, error, 0

    def read(self, count: int) -> bytes:
        if self.fail_at is not None and self.position >= self.fail_at:
            raise self.error
        part = self.content[self.position : self.position + count]
        self.position += len(part)
        return part

    def close(self) -> None:
        pass


def test_a_stream_that_cannot_go_on_in_parts_starts_again_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT_SECONDS", 0.001)
    content = np.random.default_rng(1).bytes(5 << 20)
    opened: list[dict[str, Any]] = []

    class System:
        def open(self, url: str, mode: str, **options: Any) -> Stream:
            opened.append(options)
            if not options:
                return Stream(content, 2 << 20, ValueError("no support for range requests"))
            return Stream(content, 3 << 20 if len(opened) == 2 else None, ConnectionResetError("reset"))

    monkeypatch.setattr(location_module, "_filesystem", lambda url: (System(), url))
    assert RemotePath("http://host/a").open().read() == content
    assert opened == [{}, {"block_size": 0}, {"block_size": 0}]


def test_a_shard_of_a_server_that_gives_parts_is_read(shard: str) -> None:
    assert IndexedShard.open(shard).read(0, 4).tolist() == [5, 2, 6, 2]
