"""Fixtures: small models, random weights, and checkpoints of them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
import torch
from torch import Tensor
from torch.distributed import checkpoint as dcp

from megatron_salamandra.config import RunConfig
from megatron_salamandra.hf.mapping import megatron_shapes
from megatron_salamandra.run_directory import describe_files, write_manifest

LINES = (
    "Tots els éssers humans neixen lliures i iguals en dignitat i en drets.",
    "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "Gizon-emakume guztiak aske jaiotzen dira, duintasun eta eskubide berberak dituztela.",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια.",
    "Все люди рождаются свободными и равными в своём достоинстве и правах.",
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren, größer als 1948.",
    "def forward(self, x):    return self.proj(x) + 1024  # l·l aaa ---- ==== ....",
)


def composition_rules(path: Path) -> Path:
    """NFC as SentencePiece rules, for every character that has a canonical decomposition."""
    rules = {}
    for code in range(0x80, 0x30000):
        if 0xD800 <= code < 0xE000:
            continue
        decomposed, composed = (unicodedata.normalize(form, chr(code)) for form in ("NFD", "NFC"))
        rules.update({source: composed for source in (decomposed, chr(code)) if source != composed})
    with path.open("w") as stream:
        for pair in sorted(rules.items()):
            stream.write("\t".join(" ".join(f"{ord(c):X}" for c in text) for text in pair) + "\n")
    return path


def train_tokenizer(directory: Path) -> Path:
    """A SentencePiece model with the published training options and a small vocabulary."""
    runs = ["\u2581" * n for n in range(2, 25)] + ["\t" * n for n in range(2, 7)] + ["\n\n", "\n\n\n"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 20),
        model_prefix=str(directory / "tokenizer"),
        model_type="bpe",
        vocab_size=700,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_tsv=str(composition_rules(directory / "nfc.tsv")),
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        pad_id=3,
        control_symbols=["<|im_start|>", "<|im_end|>", *(f"<|reserved_token_{n}|>" for n in range(1, 99))],
        user_defined_symbols=["\\r", *runs],
        num_threads=1,
        minloglevel=2,
    )
    return directory / "tokenizer.model"


def make_config(query_groups: int = 2, precision: str = "fp32", layers: int = 3) -> RunConfig:
    """The configuration of a model of a few thousand weights."""
    return RunConfig.model_validate(
        {
            "precision": precision,
            "model": {
                "name": "salamandra-test",
                "layers": layers,
                "hidden_size": 32,
                "ffn_hidden_size": 48,
                "attention_heads": 4,
                "query_groups": query_groups,
                "vocab_size": 704,
                "rope_base": 5000.0,
                "norm_eps": 1e-4,
            },
            "data": {"sequence_length": 64},
            "training": {"micro_batch_size": 1, "global_batch_size": 2, "steps": 4},
            "optimizer": {"lr": 1e-3, "min_lr": 1e-4, "schedule": "cosine", "warmup_steps": 1},
        }
    )


def make_weights(config: RunConfig) -> dict[str, Tensor]:
    """Stacked Megatron tensors; norms away from 1, everything distinguishable."""
    generator = torch.Generator().manual_seed(0)
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    return {
        key: (torch.randn(shape, generator=generator) * 0.2 + ("norm" in key)).to(dtype)
        for key, shape in megatron_shapes(config.model).items()
    }


def write_step(path: Path, config: RunConfig, weights: dict[str, Tensor], tokenizer: Path | None) -> Path:
    """Write a step directory as training leaves it, through torch.distributed.checkpoint."""
    (path / "shards").mkdir(parents=True)
    state = {**weights, "optimizer.exp_avg.output_layer.weight": torch.zeros(4)}
    dcp.save(state, checkpoint_id=path / "shards", no_dist=True)
    (path / "config.yaml").write_text(config.to_yaml())
    ledger = [
        {"language": "ca", "samples": 30, "tokens": 1920, "epochs": 1.5},
        {"language": "no", "samples": 10, "tokens": 640, "epochs": 0.25},
        {"language": "code", "samples": 10, "tokens": 640, "epochs": 0.25},
        {"language": "mt", "samples": 0, "tokens": 0, "epochs": 0.0},
    ]
    training_state = {"step": 20, "consumed_samples": 40, "consumed_tokens": 2560, "ledger": ledger}
    (path / "state.json").write_text(json.dumps(training_state))
    if tokenizer is not None:
        (path / "tokenizer.model").write_bytes(tokenizer.read_bytes())
    files = [str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()]
    write_manifest(path, describe_files(path, files))
    return path


@pytest.fixture(scope="session")
def tokenizer_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See :func:`train_tokenizer`."""
    return train_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def small_config() -> Callable[..., RunConfig]:
    """See :func:`make_config`."""
    return make_config


@pytest.fixture(scope="session")
def random_weights() -> Callable[[RunConfig], dict[str, Tensor]]:
    """See :func:`make_weights`."""
    return make_weights


@pytest.fixture(scope="session")
def write_checkpoint(tokenizer_model: Path) -> Callable[..., Path]:
    """See :func:`write_step`."""

    def write(path: Path, config: RunConfig, weights: dict[str, Tensor], with_tokenizer: bool = True) -> Path:
        return write_step(path, config, weights, tokenizer_model if with_tokenizer else None)

    return write
