"""Checkpoints made to do harm, with manifests that fit: every command that reads one refuses it, and nothing runs."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_checkpoints import make_config, make_weights, train_tokenizer, write_step
from torch.distributed.checkpoint.metadata import MetadataIndex

from megatron_salamandra import cli
from megatron_salamandra.checkpoint import load_metadata
from megatron_salamandra.run_directory import describe_files, write_manifest

BOMB_BYTES = 1 << 30
MOST_MORE_BYTES = 256 << 20
"""Of memory that refusing one may take."""


class Runs:
    """Unpickling it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def bomb() -> bytes:
    """A megabyte that unpacks to a gigabyte, as an archive of torch."""
    stream = io.BytesIO()
    torch.save(torch.zeros(4), stream)
    whole = io.BytesIO()
    with zipfile.ZipFile(stream) as plain, zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as packed:
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))
        with packed.open("archive/data/1", "w", force_zip64=True) as data:
            for _ in range(BOMB_BYTES >> 24):
                data.write(bytes(1 << 24))
    return whole.getvalue()


def pickle_in_metadata(step: Path, ran: Path) -> None:
    (step / "shards" / ".metadata").write_bytes(pickle.dumps(Runs(ran)))


def pickle_among_the_tensors(step: Path, ran: Path) -> None:
    """In the place of the first tensor of each file."""
    metadata = load_metadata(step / "shards" / ".metadata")
    stream = io.BytesIO()
    torch.save(Runs(ran), stream)
    for index, place in metadata.storage_data.items():
        file = step / "shards" / place.relative_path
        contents = file.read_bytes() + stream.getvalue()
        metadata.storage_data[index].offset = file.stat().st_size
        metadata.storage_data[index].length = len(stream.getvalue())
        file.write_bytes(contents)
    (step / "shards" / ".metadata").write_bytes(pickle.dumps(metadata))


def bomb_among_the_tensors(step: Path, ran: Path) -> None:
    metadata = load_metadata(step / "shards" / ".metadata")
    file = step / "shards" / next(iter(metadata.storage_data.values())).relative_path
    packed = bomb()
    for place in metadata.storage_data.values():
        if place.relative_path == file.name:
            place.offset, place.length = file.stat().st_size, len(packed)
    file.write_bytes(file.read_bytes() + packed)
    (step / "shards" / ".metadata").write_bytes(pickle.dumps(metadata))


def tensor_in_another_directory(step: Path, ran: Path) -> None:
    metadata = load_metadata(step / "shards" / ".metadata")
    for place in metadata.storage_data.values():
        place.relative_path = f"../../elsewhere/{place.relative_path}"
    shutil.copytree(step / "shards", step.parent / "elsewhere")
    (step / "shards" / ".metadata").write_bytes(pickle.dumps(metadata))


def tensor_of_an_absurd_size(step: Path, ran: Path) -> None:
    metadata = load_metadata(step / "shards" / ".metadata")
    for entry in metadata.state_dict_metadata.values():
        entry.size = torch.Size([1 << 40, *entry.size[1:]])
    (step / "shards" / ".metadata").write_bytes(pickle.dumps(metadata))


def piece_behind_the_end_of_its_file(step: Path, ran: Path) -> None:
    metadata = load_metadata(step / "shards" / ".metadata")
    place = next(iter(metadata.storage_data.items()))
    assert isinstance(place[0], MetadataIndex)
    place[1].length = 1 << 50
    (step / "shards" / ".metadata").write_bytes(pickle.dumps(metadata))


def tokenizer_that_is_a_link_to_a_secret(step: Path, ran: Path) -> None:
    secret = step.parent / "secret"
    secret.write_text("a key of the user")
    (step / "tokenizer.model").unlink()
    (step / "tokenizer.model").symlink_to(secret)


def state_that_is_a_pipe(step: Path, ran: Path) -> None:
    """Whoever opens it waits for ever."""
    (step / "state.json").unlink()
    os.mkfifo(step / "state.json")


def configuration_with_a_class(step: Path, ran: Path) -> None:
    text = (step / "config.yaml").read_text()
    (step / "config.yaml").write_text(f"{text}\nx: !!python/object/apply:os.mkdir ['{ran}']\n")


def configuration_of_aliases(step: Path, ran: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, after in zip("abcdefghi", "bcdefghij", strict=True):
        lines.append(f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]")
    (step / "config.yaml").write_text("\n".join(lines) + "\n")


def tokenizer_of_noise(step: Path, ran: Path) -> None:
    (step / "tokenizer.model").write_bytes(b"\x0a\xff\xff\xff\xff\x0f" + os.urandom(4000))


HOSTILE: list[Callable[[Path, Path], None]] = [
    pickle_in_metadata,
    pickle_among_the_tensors,
    bomb_among_the_tensors,
    tensor_in_another_directory,
    tensor_of_an_absurd_size,
    piece_behind_the_end_of_its_file,
    tokenizer_that_is_a_link_to_a_secret,
    state_that_is_a_pipe,
    configuration_with_a_class,
    configuration_of_aliases,
    tokenizer_of_noise,
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound")
    config = make_config()
    return write_step(root / "step-00000020", config, make_weights(config), train_tokenizer(root))


@pytest.fixture(scope="module")
def exported(sound: Path) -> Path:
    out = sound.parent / "exported"
    assert cli.main(["hf", "export", "--checkpoint", str(sound), "--out", str(out)]) == 0
    return out


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    """Refusing a file takes no memory to speak of."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    before = peak_memory()
    yield
    assert peak_memory() - before < MOST_MORE_BYTES


def peak_memory() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    return int(line.split()[1]) * 1024


def renew_manifest(step: Path) -> None:
    names = [str(path.relative_to(step)) for path in step.rglob("*") if path.is_file() or path.is_fifo()]
    plain = [name for name in names if name != "manifest.json" and (step / name).is_file()]
    files = describe_files(step, plain)
    files |= {
        name: {"bytes": 0, "xxh3_128": []} for name in names if name not in plain and name != "manifest.json"
    }
    write_manifest(step, files)


@pytest.mark.parametrize("spoil", HOSTILE, ids=lambda spoil: spoil.__name__)
def test_no_command_is_harmed_by_a_hostile_checkpoint(
    sound: Path,
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    bounded_memory: None,
    spoil: Callable[[Path, Path], None],
) -> None:
    step, ran = tmp_path / "step-00000020", tmp_path / "ran"
    shutil.copytree(sound, step)
    spoil(step, ran)
    renew_manifest(step)
    commands = [
        ["hf", "export", "--checkpoint", str(step), "--out", str(tmp_path / "out")],
        ["hf", "compare", "--checkpoint", str(step), "--hf", str(exported)],
        [
            "generate",
            "--checkpoint",
            str(step),
            "--prompt",
            "Tots",
            "--max-new-tokens",
            "1",
            "--device",
            "cpu",
        ],
    ]
    for command in commands:
        capsys.readouterr()
        if "compare" in command and spoil is tokenizer_of_noise:
            continue  # it reads no tokenizer
        assert cli.main(command) != 0, command
        told = capsys.readouterr().err
        assert str(tmp_path) in told and "Traceback" not in told, told
        assert not ran.exists()
    for command in (["checkpoint", "verify", str(step)], ["checkpoint", "list", str(tmp_path)]):
        cli.main(command)
        assert not ran.exists()
    assert "a key of the user" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
