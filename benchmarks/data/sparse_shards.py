"""Shards as large as those of the 7B's run, without their text: 226 of 36 languages, whose sizes span three decades."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from salamandra_data.blend_plan import LanguageFactors, build_plan
from salamandra_data.checksums import sha256_of_file
from salamandra_data.shards import ShardManifest, TokenizerIdentity

TOKENS = 2_400_000_000_000
SAMPLES = 3_016_817 * 512
SHARDS, LANGUAGES = 226, 36
SEQUENCE_LENGTH = 8192
GLOBAL_BATCH = 512
DOCUMENT_TOKENS = 700  # of every document; decides the size of .idx
VOCAB_SIZE, EOD = 256_000, 2
CHUNK_BYTES = 1 << 26


def write_shards(directory: Path, *, scale: int = 1, whole_index: bool = False) -> Path:
    """Write shards of ``TOKENS / scale`` tokens and their blend plan; returns the plan's path.

    ``.bin`` files are holes of the right size, so all ids are 0. ``.idx`` files are, too, but for the header and
    the last entry, which is all that opening a shard reads; with ``whole_index`` they are complete.
    """
    model = directory / "tokenizer.model"
    directory.mkdir(parents=True, exist_ok=True)
    model.write_bytes(b"not read by anyone here")
    tokenizer = TokenizerIdentity(sha256_of_file(model), VOCAB_SIZE, EOD)
    shares = np.geomspace(1000, 1, LANGUAGES)
    shares /= shares.sum()
    counts = np.maximum(1, np.floor(shares * SHARDS)).astype(int)
    counts[0] += SHARDS - counts.sum()
    for number, (share, count) in enumerate(zip(shares, counts, strict=True)):
        documents = int(TOKENS / scale * share / count) // DOCUMENT_TOKENS
        for shard in range(count):
            prefix = directory / f"l{number:02d}-train-{shard:05d}"
            with open(f"{prefix}.bin", "wb") as stream:
                stream.truncate(4 * documents * DOCUMENT_TOKENS)
            (write_whole_index if whole_index else write_hollow_index)(Path(f"{prefix}.idx"), documents)
            write_manifest(prefix, f"l{number:02d}", f"{number:032x}{shard:032x}", documents, tokenizer)
    build_plan([directory], LanguageFactors({})).save(directory / "blend.yaml")
    return directory / "blend.yaml"


def header(documents: int) -> bytes:
    return b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 4, documents, documents + 1)


def write_hollow_index(path: Path, documents: int) -> None:
    with open(path, "wb") as stream:
        stream.write(header(documents))
        stream.seek(34 + 4 * (documents - 1))
        stream.write(struct.pack("<i", DOCUMENT_TOKENS))
        stream.seek(34 + 4 * documents + 8 * (documents - 1))
        stream.write(struct.pack("<q", 4 * (documents - 1) * DOCUMENT_TOKENS))
        stream.seek(34 + 12 * documents + 8 * documents)
        stream.write(struct.pack("<q", documents))


def write_whole_index(path: Path, documents: int) -> None:
    with open(path, "wb") as stream:
        stream.write(header(documents))
        stream.write(np.full(documents, DOCUMENT_TOKENS, dtype="<i4").tobytes())
        stream.write((np.arange(documents, dtype="<i8") * 4 * DOCUMENT_TOKENS).tobytes())
        stream.write(np.arange(documents + 1, dtype="<i8").tobytes())


def write_manifest(
    prefix: Path, language: str, checksum: str, documents: int, tokenizer: TokenizerIdentity
) -> None:
    """``checksum`` stands for that of the index and of every chunk, by which shards are told apart."""
    tokens = documents * DOCUMENT_TOKENS
    ShardManifest(
        language=language,
        split="train",
        documents=documents,
        tokens=tokens,
        utf8_bytes=4 * tokens,
        tokenizer=tokenizer,
        shuffle_seed=0,
        bin_bytes=4 * tokens,
        bin_sha256=(checksum,) * -(-4 * tokens // CHUNK_BYTES),
        idx_sha256=checksum,
    ).save(prefix)
