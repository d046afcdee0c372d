"""From a sharded checkpoint to a Hugging Face model directory, in one pass and bounded memory."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from megatron_salamandra.foundation.atomic_files import publish_directory
from megatron_salamandra.hf.checkpoint_reader import ShardedCheckpoint
from megatron_salamandra.hf.errors import HuggingFaceError, OptionError, TokenizerConversionError
from megatron_salamandra.hf.mapping import huggingface_shapes
from megatron_salamandra.hf.model_files import (
    choose_dtype,
    generation_settings,
    llama_settings,
    model_card,
    write_json,
)
from megatron_salamandra.hf.safetensors_writer import write_weights
from megatron_salamandra.hf.sentencepiece_model import read_special_ids
from megatron_salamandra.hf.tokenizer import (
    UNCONVERTED_MODEL,
    convert_tokenizer,
    write_tokenizer_files,
    write_unconverted_tokenizer,
)
from megatron_salamandra.hf.tokenizer_verification import TokenizerReport, probe_texts, verify_tokenizer

GIBIBYTE = 1 << 30
EXPORT_FILES = {
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    UNCONVERTED_MODEL,
    "tokenizer_config.json",
}
"""What an export may consist of beside its safetensors files; nothing else is ever replaced."""


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote.

    Args:
        out: the directory.
        checkpoint: the step directory it was made from.
        step: optimizer steps of that checkpoint, if it says.
        parameters: number of weights.
        dtype: name of their dtype.
        weight_files: names of the safetensors files.
        weight_bytes: bytes of tensor data in them.
        tokenizer: the comparison with the SentencePiece model; None if no fast tokenizer was made.
        tokenizer_note: outcome for people, whichever it was.
    """

    out: Path
    checkpoint: Path
    step: int | None
    parameters: int
    dtype: str
    weight_files: tuple[str, ...]
    weight_bytes: int
    tokenizer: TokenizerReport | None
    tokenizer_note: str


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    dtype: str = "auto",
    shard_bytes: int = 5 * GIBIBYTE,
    tokenizer_model: Path | None = None,
    verification_texts: Iterable[str] | None = None,
    force: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Write ``checkpoint`` as a ``LlamaForCausalLM`` directory that transformers loads as it is.

    Everything is written next to ``out`` under a temporary name and renamed when complete, so
    ``out`` never holds half an export.

    Args:
        checkpoint: a step directory, a ``checkpoints`` directory or a run directory (then the
            latest complete checkpoint).
        out: directory to create; it must not exist or be empty unless ``force``.
        dtype: ``auto`` (as stored), ``bfloat16`` or ``float32``.
        shard_bytes: most tensor bytes in one safetensors file, above 0.
        tokenizer_model: SentencePiece model to use instead of the one in the checkpoint.
        verification_texts: texts to compare the exported tokenizer on; a built-in set if not given.
        force: replace an existing export.
        on_progress: called with (bytes written, bytes in all) after each tensor.
    Raises:
        OptionError: ``dtype`` or ``shard_bytes`` cannot be.
        CheckpointError: the checkpoint is missing, incomplete, damaged or of another model.
        HuggingFaceError: ``out`` is in use, the tokenizer does not fit the model, or the file
            system refused; nothing is left behind.
    """
    if shard_bytes < 1:
        raise OptionError(f"shard_bytes = {shard_bytes} must be above 0")
    source = ShardedCheckpoint.open(checkpoint)
    chosen_dtype = choose_dtype(dtype, source.stored_dtype)
    model_path = _tokenizer_of(source, tokenizer_model)
    special_ids = read_special_ids(model_path, source.config.model.vocab_size)
    _refuse_occupied(out, force)
    temporary = _temporary_beside(out)
    try:
        # The tokenizer first: it is quick, and a bad one should not cost the weights' time.
        report, note = _write_tokenizer(
            temporary,
            model_path,
            source.config.data.sequence_length,
            probe_texts() if verification_texts is None else verification_texts,
        )
        model = source.config.model
        shapes = huggingface_shapes(model)
        weights = write_weights(
            temporary,
            shapes,
            source.huggingface_tensors(),
            dtype=chosen_dtype,
            shard_bytes=shard_bytes,
            on_progress=on_progress,
        )
        write_json(temporary / "model.safetensors.index.json", weights.index)
        write_json(
            temporary / "config.json",
            llama_settings(model, source.config.data.sequence_length, chosen_dtype, special_ids),
        )
        write_json(temporary / "generation_config.json", generation_settings(special_ids))
        parameters = sum(math.prod(shape) for shape in shapes.values())
        dtype_name = str(chosen_dtype).removeprefix("torch.")
        card = model_card(
            source.config, source.state, parameters=parameters, dtype=dtype_name, tokenizer_note=note
        )
        (temporary / "README.md").write_text(card, encoding="utf-8")
        publish_directory(temporary, out)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise _write_error(out, error) from error
        raise
    step = source.state.get("step")
    return ExportReport(
        out=out,
        checkpoint=source.path,
        step=step if isinstance(step, int) else None,
        parameters=parameters,
        dtype=dtype_name,
        weight_files=weights.files,
        weight_bytes=weights.total_bytes,
        tokenizer=report,
        tokenizer_note=note,
    )


def shard_bytes_of(gibibytes: float) -> int:
    """Bytes of a size in GiB, at least one.

    Raises:
        OptionError: not a number above 0.
    """
    if not 0 < gibibytes < math.inf:
        raise OptionError(f"--shard-gib {gibibytes:g}: must be a finite number above 0")
    return max(1, int(gibibytes * GIBIBYTE))


def _tokenizer_of(source: ShardedCheckpoint, given: Path | None) -> Path:
    path = given or source.tokenizer_model
    if path is None:
        raise HuggingFaceError(
            f"{source.path}: the checkpoint has no tokenizer.model\n  name one with --tokenizer MODEL"
        )
    if not path.is_file():
        raise HuggingFaceError(f"{path}: no such tokenizer model")
    return path


def _write_error(out: Path, error: OSError) -> HuggingFaceError:
    return HuggingFaceError(
        f"{out}: the export cannot be written: {error}\n"
        "  nothing was left behind; free space, or choose another --out"
    )


def _temporary_beside(out: Path) -> Path:
    """A new directory on the file system of ``out``, with the rights that ``out`` itself would get."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o777 & ~mask)
    except OSError as error:
        raise _write_error(out, error) from error
    return temporary


def _refuse_occupied(out: Path, force: bool) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or out.is_symlink():
        raise HuggingFaceError(f"{out}: exists and is not a directory\n  choose another --out")
    if not any(out.iterdir()):
        return
    if not force:
        raise HuggingFaceError(
            f"{out}: directory is not empty\n  choose another --out, or replace it with --force"
        )
    if not (out / "config.json").is_file():
        raise HuggingFaceError(
            f"{out}: not replaced: it has no config.json, so it is not an earlier export\n"
            "  choose another --out"
        )
    foreign = sorted(path.name for path in out.iterdir() if not _is_ours(path.name))
    if foreign:
        raise HuggingFaceError(
            f"{out}: not replaced: {foreign[0]} was not written by an export\n  move it away, or choose another --out"
        )


def _is_ours(name: str) -> bool:
    return name in EXPORT_FILES or (name.startswith("model") and name.endswith(".safetensors"))


def _write_tokenizer(
    directory: Path, model_path: Path, sequence_length: int, texts: Iterable[str]
) -> tuple[TokenizerReport | None, str]:
    try:
        converted = convert_tokenizer(model_path)
    except TokenizerConversionError as error:
        reason = str(error).removeprefix(f"{model_path}: ")
        write_unconverted_tokenizer(directory, model_path, reason)
        return None, (
            f"NO fast tokenizer, and AutoTokenizer refuses: only {UNCONVERTED_MODEL} is included, to be used with the "
            f"sentencepiece package. Reason: {reason}."
        )
    write_tokenizer_files(directory, converted, model_path, sequence_length=sequence_length)
    report = verify_tokenizer(directory, model_path, texts)
    return report, f"Compared with SentencePiece: {report.summary()}."
