"""Whole exports: what transformers loads, computes and generates from them, and what happens on faults."""

from __future__ import annotations

import builtins
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from megatron_salamandra.config import ModelSection, RopeScalingSection, RunConfig
from megatron_salamandra.hf import (
    HuggingFaceError,
    OptionError,
    TokenizerConversionError,
    check_export,
    export_checkpoint,
    load_checkpoint,
    load_export,
    shard_bytes_of,
)
from megatron_salamandra.hf.model_files import llama_settings
from megatron_salamandra.hf.sentencepiece_model import SpecialIds
from megatron_salamandra.model.rotary import rope_scaling
from megatron_salamandra.run_directory import CheckpointError, describe_files, write_manifest
from salamandra_kernels import rope_table

transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")

ConfigMaker = Callable[..., RunConfig]
Weights = dict[str, Tensor]


def megatron_forward(weights: Weights, model: ModelSection, tokens: Tensor) -> Tensor:
    """The model written down once more, from the stacked tensors: tokens [B, S] to logits [B, S, V]."""

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + model.norm_eps) * weight

    def layer(name: str, number: int) -> Tensor:
        return weights[f"decoder.layers.{name}.weight"][number]

    length, d = tokens.shape[1], model.head_dim
    frequencies = model.rope_base ** (-torch.arange(0, d, 2) / d)
    angles = torch.arange(length)[:, None] * frequencies
    cos, sin = (torch.cat([f(angles)] * 2, -1)[None, :, None, :] for f in (torch.cos, torch.sin))

    def rotate(x: Tensor) -> Tensor:
        return x * cos + torch.cat([-x[..., d // 2 :], x[..., : d // 2]], -1) * sin

    hidden = weights["embedding.word_embeddings.weight"][tokens]
    mask = torch.full((length, length), -math.inf).triu(1)
    for number in range(model.layers):
        x = norm(hidden, layer("input_layernorm", number))
        fused = (x @ layer("self_attention.linear_qkv", number).T).unflatten(-1, (model.groups, -1, d))
        query, key, value = fused[..., :-2, :], fused[..., -2, :], fused[..., -1, :]
        heads = query.shape[-2]
        query = rotate(query.flatten(2, 3)).unflatten(2, (model.groups, heads))
        scores = torch.einsum("bsghd,btgd->bghst", query, rotate(key)) / math.sqrt(d) + mask
        mixed = torch.einsum("bghst,btgd->bsghd", scores.softmax(-1), value).flatten(2)
        hidden = hidden + mixed @ layer("self_attention.linear_proj", number).T
        x = norm(hidden, layer("pre_mlp_layernorm", number)) @ layer("mlp.linear_fc1", number).T
        gate, up = x.chunk(2, -1)
        hidden = hidden + (F.silu(gate) * up) @ layer("mlp.linear_fc2", number).T
    return norm(hidden, weights["decoder.final_layernorm.weight"]) @ weights["output_layer.weight"].T


@pytest.fixture(scope="module")
def make_step(
    tmp_path_factory: pytest.TempPathFactory,
    small_config: ConfigMaker,
    random_weights: Callable[[RunConfig], Weights],
    write_checkpoint: Callable[..., Path],
) -> Callable[..., Path]:
    def make(**options: Any) -> Path:
        config = small_config(**options)
        return write_checkpoint(
            tmp_path_factory.mktemp("run") / "step-00000020", config, random_weights(config)
        )

    return make


@pytest.fixture(scope="module")
def step(make_step: Callable[..., Path]) -> Path:
    return make_step()


@pytest.fixture(scope="module")
def exported(step: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "hf"
    export_checkpoint(step, out, shard_bytes=60_000, verification_texts=["lliures"])
    return out


@pytest.mark.parametrize("query_groups", [4, 2, 1], ids=["mha", "gqa", "mqa"])
def test_transformers_computes_the_same_logits(
    query_groups: int,
    make_step: Callable[..., Path],
    small_config: ConfigMaker,
    random_weights: Any,
    tmp_path: Path,
) -> None:
    config = small_config(query_groups=query_groups)
    export_checkpoint(make_step(query_groups=query_groups), tmp_path / "hf", verification_texts=[])
    tokens = torch.randint(0, 704, (2, 48), generator=torch.Generator().manual_seed(1))
    parity = check_export(
        tmp_path / "hf", tokens, megatron_forward(random_weights(config), config.model, tokens)
    )
    assert parity.max_logit > 1
    assert parity.max_difference < 1e-4
    assert parity.positions == 96
    assert parity.same_argmax > 0.99


def test_weights_are_split_into_files_of_the_size_asked_for(exported: Path) -> None:
    index = json.loads((exported / "model.safetensors.index.json").read_text())
    files = sorted(exported.glob("model-*.safetensors"))
    assert len(files) > 3
    assert [path.name for path in files] == [
        f"model-{number:05d}-of-{len(files):05d}.safetensors" for number in range(1, len(files) + 1)
    ]
    loaded = {path.name: safetensors_torch.load_file(path) for path in files}
    sizes = {name: sum(t.numel() * t.element_size() for t in file.values()) for name, file in loaded.items()}
    assert sum(sizes.values()) == index["metadata"]["total_size"]
    assert all(size <= 60_000 or len(loaded[name]) == 1 for name, size in sizes.items())
    assert index["weight_map"] == {tensor: name for name, file in loaded.items() for tensor in file}


def test_stretched_rotary_wavelengths_reach_the_export() -> None:
    model = ModelSection(
        name="long",
        layers=1,
        hidden_size=256,
        ffn_hidden_size=64,
        attention_heads=2,
        vocab_size=32,
        rope_scaling=RopeScalingSection(factor=4.0, original_sequence_length=8192, low_frequency_factor=2.0),
    )
    settings = llama_settings(model, 32768, torch.float32, SpecialIds(unknown=0, begin=1, end=2, padding=3))
    config = transformers.LlamaConfig(**settings)
    theirs, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    table = rope_table(torch.tensor([1]), 128, 10_000.0, scaling=rope_scaling(model))
    torch.testing.assert_close(table[0, 64:], theirs.sin(), atol=1e-6, rtol=1e-6)


def test_config_carries_the_values_of_the_run(exported: Path) -> None:
    config = transformers.AutoConfig.from_pretrained(exported)
    assert config.rms_norm_eps == 1e-4
    rope = getattr(config, "rope_parameters", None) or {"rope_theta": config.rope_theta}
    assert rope["rope_theta"] == 5000.0
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (4, 2, 8)
    assert config.tie_word_embeddings is False
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 3)
    assert config.dtype == torch.float32
    assert transformers.GenerationConfig.from_pretrained(exported).eos_token_id == 2


def test_model_card_tells_languages_tokens_and_tokenizer(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert '- "ca"\n- "no"\n---' in card
    assert "| ca | 1,920 | 1.500 |" in card
    assert "| code | 640 | 0.250 |" in card
    assert "| mt |" not in card
    assert "same ids and same decoded text as the SentencePiece model on 1 texts" in card
    assert "| tokens read | 2,560 |" in card


@pytest.mark.parametrize(
    ("precision", "dtype", "expected"),
    [
        ("bf16", "auto", torch.bfloat16),
        ("bf16", "float32", torch.float32),
        ("fp32", "bfloat16", torch.bfloat16),
    ],
)
def test_dtype_is_the_stored_one_or_the_one_asked_for(
    precision: str, dtype: str, expected: torch.dtype, make_step: Callable[..., Path], tmp_path: Path
) -> None:
    report = export_checkpoint(
        make_step(precision=precision, layers=1), tmp_path / "hf", dtype=dtype, verification_texts=[]
    )
    assert report.dtype == str(expected).removeprefix("torch.")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype="auto")
    assert {parameter.dtype for parameter in model.parameters()} == {expected}


def test_checkpoint_and_its_export_are_the_same_model(step: Path, exported: Path) -> None:
    device = torch.device("cpu")
    direct, loaded = load_checkpoint(step, device=device), load_export(exported, device=device)
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(direct.model(tokens).logits, loaded.model(tokens).logits)
    text = "Tots els éssers\n\n  humans </s>"
    assert direct.tokenizer(text)["input_ids"] == loaded.tokenizer(text)["input_ids"]
    assert direct.tokenizer.eos_token_id == loaded.tokenizer.eos_token_id == 2


def test_run_directory_means_its_latest_checkpoint(step: Path, tmp_path: Path) -> None:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/step-00000020").symlink_to(step)
    report = export_checkpoint(tmp_path / "run", tmp_path / "hf", verification_texts=[])
    assert report.step == 20
    assert report.checkpoint.name == "step-00000020"


def test_progress_reaches_all_bytes(step: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = export_checkpoint(
        step,
        tmp_path / "hf",
        verification_texts=[],
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (report.weight_bytes, report.weight_bytes)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_occupied_out_is_refused_and_left_alone(step: Path, tmp_path: Path) -> None:
    out = tmp_path / "hf"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(HuggingFaceError, match="not empty"):
        export_checkpoint(step, out)
    with pytest.raises(HuggingFaceError, match="not an earlier export"):
        export_checkpoint(step, out, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
    assert (out / "thesis.txt").read_text() == "mine"


def test_force_replaces_an_earlier_export_whole(step: Path, tmp_path: Path) -> None:
    out = tmp_path / "hf"
    export_checkpoint(step, out, verification_texts=[], shard_bytes=60_000)
    export_checkpoint(step, out, verification_texts=[], force=True)
    assert [path.name for path in sorted(out.glob("*.safetensors"))] == ["model-00001-of-00001.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_force_never_takes_a_file_of_somebody_else(step: Path, tmp_path: Path) -> None:
    out = tmp_path / "hf"
    export_checkpoint(step, out, verification_texts=[])
    (out / "results.csv").write_text("mine")
    with pytest.raises(HuggingFaceError, match="results.csv was not written by an export"):
        export_checkpoint(step, out, verification_texts=[], force=True)
    assert (out / "results.csv").read_text() == "mine"


@pytest.mark.parametrize("failing", ["model-00002", "README.md", "tokenizer.model"])
def test_full_disk_leaves_nothing_behind(
    failing: str, step: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise OSError(28, "No space left on device")

    path_open, plain_open = Path.open, builtins.open

    def opened(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if failing in self.name and "w" in mode:
            refuse()
        return path_open(self, mode, *arguments, **options)

    def opened_plainly(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if failing in str(path) and "w" in mode:
            refuse()
        return plain_open(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(builtins, "open", opened_plainly)
    with pytest.raises(HuggingFaceError, match="cannot be written: .*No space left"):
        export_checkpoint(step, tmp_path / "hf", shard_bytes=60_000, verification_texts=[])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("noticed", ["before", "while reading"])
def test_damaged_checkpoint_leaves_nothing_behind(
    make_step: Callable[..., Path], tmp_path: Path, noticed: str
) -> None:
    step = make_step(layers=2)
    for file in (step / "shards").glob("*.distcp"):
        whole = file.read_bytes()
        file.write_bytes(whole[:-5000] + bytes(5000))
    if noticed != "before":
        files = [str(path.relative_to(step)) for path in step.rglob("*") if path.is_file()]
        write_manifest(step, describe_files(step, [name for name in files if name != "manifest.json"]))
    with pytest.raises(CheckpointError, match="checksum" if noticed == "before" else "damaged"):
        export_checkpoint(step, tmp_path / "hf", verification_texts=[])
    assert list(tmp_path.iterdir()) == []


def test_tokenizer_larger_than_the_vocabulary_is_refused(
    step: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from megatron_salamandra.hf import sentencepiece_model

    with pytest.raises(TokenizerConversionError, match=r"700 pieces do not fit model\.vocab_size = 640"):
        sentencepiece_model.read_special_ids(step / "tokenizer.model", 640)


def test_missing_tokenizer_is_refused_or_named(
    step: Path, small_config: ConfigMaker, random_weights: Any, write_checkpoint: Any, tmp_path: Path
) -> None:
    config = small_config()
    bare = write_checkpoint(tmp_path / "step-00000001", config, random_weights(config), with_tokenizer=False)
    with pytest.raises(HuggingFaceError, match="--tokenizer MODEL"):
        export_checkpoint(bare, tmp_path / "hf")
    export_checkpoint(bare, tmp_path / "hf", tokenizer_model=step / "tokenizer.model", verification_texts=[])
    assert (tmp_path / "hf/tokenizer.json").is_file()


def test_inexact_tokenizer_is_said_in_report_and_card(step: Path, tmp_path: Path) -> None:
    # Marks out of canonical order: NFC sorts them, SentencePiece's rules leave them.
    report = export_checkpoint(step, tmp_path / "hf", verification_texts=["lliures", "ب\u0651\u064e"])
    assert report.tokenizer is not None
    assert (report.tokenizer.different_ids, report.tokenizer.different_ids_nfc) == (1, 0)
    assert "NOT the same" in report.tokenizer_note
    assert "NOT the same" in (tmp_path / "hf/README.md").read_text()


@pytest.fixture(scope="module", params=["unigram", "bpe that removes spaces"])
def unconvertible(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import sentencepiece

    unigram = request.param == "unigram"
    prefix = tmp_path_factory.mktemp("unconvertible") / "odd"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["uns quants mots per entrenar", "i uns altres mots"] * 30),
        model_prefix=str(prefix),
        model_type="unigram" if unigram else "bpe",
        vocab_size=40 if unigram else 300,
        byte_fallback=not unigram,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return prefix.with_suffix(".model")


def test_tokenizer_that_cannot_be_converted_is_not_converted_by_transformers_either(
    step: Path, tmp_path: Path, unconvertible: Path
) -> None:
    out = tmp_path / "hf"
    report = export_checkpoint(step, out, tokenizer_model=unconvertible)
    assert report.tokenizer is None
    reason = report.tokenizer_note.partition("Reason: ")[2].rstrip(".")
    assert reason.startswith("no fast tokenizer can be made with the same ids: it ")
    assert reason in (out / "README.md").read_text()
    assert not (out / "tokenizer.json").exists()
    assert (out / "tokenizer.sentencepiece").read_bytes() == unconvertible.read_bytes()
    assert not list(out.glob("*.model"))
    with pytest.raises(ValueError, match=re.escape(reason)):
        transformers.AutoTokenizer.from_pretrained(out)
    assert transformers.AutoModelForCausalLM.from_pretrained(out).config.vocab_size == 704
    with pytest.raises(HuggingFaceError, match=r"hf: has no tokenizer\.json"):
        load_export(out, device=torch.device("cpu"))
    # It is an earlier export all the same.
    export_checkpoint(step, out, verification_texts=[], force=True)
    assert not (out / "tokenizer.sentencepiece").exists()


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json", "model-00001-of-00001.safetensors"])
def test_damaged_export_is_refused_by_name(step: Path, tmp_path: Path, file: str) -> None:
    out = tmp_path / "hf"
    export_checkpoint(step, out, verification_texts=[])
    (out / file).write_bytes((out / file).read_bytes()[:100])
    with pytest.raises(HuggingFaceError, match="hf: transformers cannot load this model: "):
        load_export(out, device=torch.device("cpu"))


def test_a_batch_padded_by_the_tokenizer_continues_like_each_text_alone(exported: Path) -> None:
    loaded = load_export(exported, device=torch.device("cpu"))
    texts = ["Tots els éssers humans neixen", "Alle"]
    together = loaded.tokenizer(texts, return_tensors="pt", padding=True)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": loaded.tokenizer.pad_token_id}
    batch = loaded.model.generate(
        input_ids=together["input_ids"], attention_mask=together["attention_mask"], **options
    )
    for text, row in zip(texts, batch, strict=True):
        alone = loaded.tokenizer([text], return_tensors="pt")["input_ids"]
        expected = loaded.model.generate(input_ids=alone, **options)[0, alone.shape[1] :]
        assert torch.equal(row[together["input_ids"].shape[1] :][: len(expected)], expected)


def test_tokenizer_file_is_one_that_old_readers_understand(exported: Path) -> None:
    """Before 0.20, tokenizers read merges as "left right" only; checked here without the library."""
    content = json.loads((exported / "tokenizer.json").read_text())
    vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
    assert len(merges) > 300
    for merge in merges:
        left, right = merge.split(" ")
        assert {left, right, left + right} <= vocabulary.keys()
    assert (
        content["normalizer"]["normalizers"][-1]["type"] == "Replace"
    )  # nothing is put in front of every piece


@pytest.mark.parametrize("gibibytes", [-1.0, 0.0, math.nan, math.inf])
def test_weight_files_of_impossible_size_are_refused(step: Path, tmp_path: Path, gibibytes: float) -> None:
    with pytest.raises(OptionError, match="must be a finite number above 0"):
        shard_bytes_of(gibibytes)
    with pytest.raises(OptionError, match="shard_bytes = 0"):
        export_checkpoint(step, tmp_path / "hf", shard_bytes=0)
    assert list(tmp_path.iterdir()) == []


def test_unknown_dtype_is_refused(step: Path, tmp_path: Path) -> None:
    with pytest.raises(HuggingFaceError, match="allowed: auto, bfloat16, float32"):
        export_checkpoint(step, tmp_path / "hf", dtype="fp8")
