"""Generation from a checkpoint or an export, and the two commands."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from megatron_salamandra.cli import generate as generate_command
from megatron_salamandra.cli import hf as hf_command
from megatron_salamandra.cli import main
from megatron_salamandra.cli._command import CommandParser
from megatron_salamandra.config import RunConfig
from megatron_salamandra.evaluation import generate_texts
from megatron_salamandra.foundation.packages import MissingPackage
from megatron_salamandra.hf import HuggingFaceError, LoadedModel, load_checkpoint

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def step(
    tmp_path_factory: pytest.TempPathFactory,
    small_config: Callable[..., RunConfig],
    random_weights: Callable[[RunConfig], dict[str, Tensor]],
    write_checkpoint: Callable[..., Path],
) -> Path:
    config = small_config()
    return write_checkpoint(tmp_path_factory.mktemp("run") / "step-00000020", config, random_weights(config))


@pytest.fixture(scope="module")
def loaded(step: Path) -> LoadedModel:
    return load_checkpoint(step, device=torch.device("cpu"))


def test_greedy_text_is_what_the_logits_say_without_a_cache(loaded: LoadedModel) -> None:
    (result,) = generate_texts(loaded, ["Tots els éssers"], max_new_tokens=8)
    ids = [2, *loaded.tokenizer("Tots els éssers")["input_ids"]]
    prompt_tokens = len(ids)
    for _ in range(8):
        with torch.no_grad():
            ids.append(int(loaded.model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == 2:
            break
    expected = ids[1:-1] if ids[-1] == 2 else ids[1:]
    assert result.prompt + result.completion == loaded.tokenizer.decode(expected, skip_special_tokens=True)
    assert result.new_tokens == len(expected) + 1 - prompt_tokens


def test_sampling_follows_the_seed_and_not_the_other_prompts(loaded: LoadedModel) -> None:
    options = {"max_new_tokens": 12, "temperature": 1.0, "top_p": 0.9}
    together = list(generate_texts(loaded, ["Alle", "Todos", ""], seed=1, **options))
    alone = list(generate_texts(loaded, ["Todos"], seed=1, **options))
    other = list(generate_texts(loaded, ["Todos"], seed=2, **options))
    assert together[1] == alone[0]
    assert other != alone
    assert together[2].prompt == ""


def test_generation_does_not_disturb_the_random_state(loaded: LoadedModel) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(generate_texts(loaded, ["x"], max_new_tokens=2, temperature=1.0))
    assert torch.equal(torch.get_rng_state(), before)


def test_generation_stops_at_the_end_of_the_context(loaded: LoadedModel) -> None:
    (result,) = generate_texts(loaded, ["Tots"], max_new_tokens=500)
    prompt_tokens = 1 + len(loaded.tokenizer("Tots")["input_ids"])
    assert result.ended or prompt_tokens + result.new_tokens == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"temperature": 1e-40}, "temperature = 1e-40 must be 0, or a finite number of at least 1e-06"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
        ({"seed": 2**70}, "seed = 1180591620717411303424 does not fit in 64 bits"),
    ],
)
def test_numbers_out_of_range_are_refused(
    loaded: LoadedModel, options: dict[str, float], message: str
) -> None:
    with pytest.raises(HuggingFaceError, match=message):
        generate_texts(loaded, ["x"], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "--hf", "nowhere", "--prompt", "caf\udce9"),
        ("generate", "--hf", "nowhere", "--prompt", "x", "--temperature", "nan"),
        ("generate", "--hf", "nowhere", "--prompt", "x", "--seed", str(2**64)),
        ("generate", "--hf", "nowhere", "--prompt", "x", "--device", "abacus"),
        ("generate", "--hf", "nowhere", "--prompt", "x", "--max-new-tokens", "0"),
        ("hf", "export", "--checkpoint", "nowhere", "--out", "hf", "--shard-gib", "nan"),
        ("hf", "export", "--checkpoint", "nowhere", "--out", "hf", "--shard-gib", "-1"),
        ("hf", "compare", "--checkpoint", "nowhere", "--hf", "nowhere", "--tolerance", "nan"),
    ],
    ids=lambda words: " ".join(words[-2:]).encode("ascii", "replace").decode(),
)
def test_impossible_values_end_a_command_before_any_work(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(words)
    except SystemExit as bad_usage:
        code = bad_usage.code
    assert code == 2
    assert words[-1].lstrip("-")[:3] in capsys.readouterr().err


def test_the_least_and_greatest_temperatures_sample(loaded: LoadedModel) -> None:
    coldest, greedy, hottest = (
        next(generate_texts(loaded, ["Alle"], max_new_tokens=6, temperature=temperature))
        for temperature in (1e-6, 0.0, 1e300)
    )
    assert coldest == greedy
    assert hottest.new_tokens


def test_prompt_longer_than_the_context_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(HuggingFaceError, match="reads at most 64"):
        list(generate_texts(loaded, ["humans " * 100]))


def run_command(*words: str) -> int:
    parser = CommandParser()
    groups = parser.add_subparsers()
    hf_command.register(groups)
    generate_command.register(groups)
    arguments = parser.parse_args(words)
    code: int = arguments.handler(arguments)
    return code


def test_export_and_generate_commands(step: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": "Tots els éssers"}\n{"text": "humans\\n\\nneixen"}\nbroken\n')
    out = tmp_path / "hf"
    assert (
        run_command(
            "hf", "export", "--checkpoint", str(step), "--out", str(out), "--verify-text", str(corpus)
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "same ids and same decoded text as the SentencePiece model on 2 texts" in printed
    assert f"written     {out}" in printed
    texts = []
    for source in (("--checkpoint", str(step)), ("--hf", str(out))):
        words = ("--prompt", "Tots els", "Alle", "--max-new-tokens", "5", "--device", "cpu")
        assert run_command("generate", *source, *words) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[0].startswith("Tots els")
    assert "\n\nAlle" in texts[0]


def test_comparing_with_what_is_no_export_of_the_run_is_refused_before_anything_runs(
    step: Path, tmp_path: Path
) -> None:
    def compare(export: Path) -> int:
        return run_command("hf", "compare", "--checkpoint", str(step), "--hf", str(export))

    with pytest.raises(HuggingFaceError, match=r"nowhere: not a Hugging Face model directory"):
        compare(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(HuggingFaceError, match=r"config\.json"):
        compare(tmp_path)
    (tmp_path / "config.json").write_text('{"vocab_size": 256000}')
    with pytest.raises(HuggingFaceError, match=r"vocab_size = 256000, but .* has 704"):
        compare(tmp_path)


def test_unknown_device_is_refused(step: Path) -> None:
    with pytest.raises(HuggingFaceError, match="device 'abacus'"):
        run_command("generate", "--checkpoint", str(step), "--prompt", "x", "--device", "abacus")


def test_missing_package_is_told_with_the_remedy(step: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingPackage, match=r"pip install '\.\[hf\]'"):
        load_checkpoint(step, device=torch.device("cpu"))
