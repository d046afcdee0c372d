"""An export read by a program that knows nothing of ours, with this and other versions of transformers.

``make export-readers`` installs the versions of ``reader_versions.txt`` and names their directories in
SALAMANDRA_EXPORT_READERS; without it the installed version alone is tried.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch

from megatron_salamandra.config import RopeScalingSection, RunConfig
from megatron_salamandra.hf import export_checkpoint, load_checkpoint, probe_texts
from megatron_salamandra.hf.tokenizer_verification import ChatReference, chat_texts

pytest.importorskip("transformers")

OTHER_VERSIONS = os.environ.get("SALAMANDRA_EXPORT_READERS", "").split()
READER = Path(__file__).parents[1] / "support" / "read_export.py"


@pytest.fixture(scope="module")
def questions(
    tmp_path_factory: pytest.TempPathFactory,
    small_config: Callable[..., RunConfig],
    random_weights: Any,
    write_checkpoint: Any,
    tokenizer_model: Path,
) -> dict[str, Any]:
    """A model with stretched rotary wavelengths, once with its tokenizer and once with one that cannot be converted."""
    root = tmp_path_factory.mktemp("readers")
    plain = small_config()
    scaling = RopeScalingSection(factor=4.0, original_sequence_length=16)
    config = plain.model_copy(update={"model": plain.model.model_copy(update={"rope_scaling": scaling})})
    step = write_checkpoint(root / "step-00000020", config, random_weights(config))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["uns quants mots per entrenar", "i uns altres mots"] * 30),
        model_prefix=str(root / "unigram"),
        model_type="unigram",
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    export_checkpoint(step, root / "export", verification_texts=[])
    export_checkpoint(step, root / "refused", tokenizer_model=root / "unigram.model")
    chats = chat_texts(ChatReference(tokenizer_model).symbols)
    return {
        "step": str(step),
        "export": str(root / "export"),
        "refused": str(root / "refused"),
        "texts": list(probe_texts()),
        "chats": list(chats),
        "tokens": torch.randint(0, 704, (2, 60), generator=torch.Generator().manual_seed(3)).tolist(),
    }


@pytest.mark.parametrize("packages", ["", *OTHER_VERSIONS], ids=lambda path: Path(path).name or "installed")
def test_every_version_reads_the_same_model_and_the_same_tokenizer(
    packages: str, questions: dict[str, Any], tokenizer_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "questions.json").write_text(json.dumps(questions), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(READER), str(tmp_path / "questions.json")],
        env={**os.environ, "PYTHONPATH": packages, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    if packages:
        assert found["versions"] == Path(packages).name.split("-")
    assert found["rope"] == {
        "factor": 4.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 16,
        "rope_theta": 5000.0,
        "rope_type": "llama3",
    }
    assert found["dtype"] == "torch.float32"
    assert found["special"] == [1, 2, 3]
    loaded = load_checkpoint(Path(questions["step"]), device=torch.device("cpu"))
    with torch.no_grad():
        logits = loaded.model(torch.tensor(questions["tokens"])).logits
    torch.testing.assert_close(torch.tensor(found["logits"]), logits, atol=1e-5, rtol=1e-5)

    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_model))
    assert found["text_ids"] == found["slow_ids"] == processor.encode(questions["texts"])
    assert found["text_decoded"] == processor.decode(found["text_ids"])
    reference = ChatReference(tokenizer_model)
    assert found["chat_ids"] == [reference.encode(chat) for chat in questions["chats"]]
    assert found["chat_decoded"] == [reference.decode(ids) for ids in found["chat_ids"]]
    assert found["padding_side"] == "left"
    assert found["padded"][0][0] == 0
    assert found["padded"][0][-1] == 1
    assert "it is not a BPE model" in found["refusal"]
