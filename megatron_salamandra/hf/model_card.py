"""The README.md of an export: what the model is and what it has read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from megatron_salamandra.config import RunConfig

# Keys of the ledger that are languages in the sense of a model card (ISO 639 codes).
_NOT_LANGUAGES = frozenset({"code"})


def model_card(
    config: RunConfig, state: Mapping[str, Any], *, parameters: int, dtype: str, tokenizer_note: str
) -> str:
    """The text of the card.

    Args:
        config: the configuration the checkpoint was written with.
        state: its training state: step, consumed_tokens and ledger are shown where present.
        parameters: number of weights.
        dtype: name of the exported dtype.
        tokenizer_note: outcome of comparing the tokenizer with its SentencePiece model.
    """
    model = config.model
    ledger = _ledger_rows(state.get("ledger"))
    consumed = state.get("consumed_tokens")
    sections = [
        _front_matter([language for language, *_ in ledger if language not in _NOT_LANGUAGES]),
        f"# {model.name}\n\nA base language model of the Salamandra architecture, trained with "
        "megatron-salamandra and exported from its sharded checkpoint. It continues text; it has not been "
        "tuned to follow instructions.",
        "\n".join(
            [
                "## Model",
                "",
                "| | |",
                "|---|---|",
                f"| parameters | {parameters:,} |",
                f"| layers, hidden size, MLP width | {model.layers}, {model.hidden_size}, {model.ffn_hidden_size} |",
                f"| query heads, key/value heads | {model.attention_heads}, {model.groups} |",
                f"| vocabulary | {model.vocab_size:,} |",
                f"| context | {config.data.sequence_length:,} tokens |",
                f"| RoPE base, RMSNorm eps | {model.rope_base:g}, {model.norm_eps:g} |",
                f"| weights | {dtype} |",
                f"| optimizer steps | {state.get('step', 'unknown')} |",
                *([f"| tokens read | {consumed:,} |"] if isinstance(consumed, int) else []),
            ]
        ),
    ]
    if ledger:
        rows = [f"| {language} | {tokens:,} | {epochs:.3f} |" for language, tokens, epochs in ledger]
        sections.append(
            "\n".join(["## Training data", "", "| source | tokens read | epochs |", "|---|---:|---:|", *rows])
        )
    sections.append(
        "## Tokenizer\n\n"
        f"{tokenizer_note}\n\n"
        "No `<s>` is put in front of a text: in training, documents follow one another separated by the end "
        "symbol alone. Control symbols written in a text stay text; pass `split_special_tokens=False` to "
        "`AutoTokenizer.from_pretrained` to have them read as symbols."
    )
    return "\n\n".join(sections) + "\n"


def _front_matter(languages: Sequence[str]) -> str:
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    if languages:
        # Quoted: YAML reads a bare no (Norwegian) as false.
        lines += ["language:", *(f'- "{language}"' for language in languages)]
    return "\n".join([*lines, "---"])


def _ledger_rows(ledger: Any) -> list[tuple[str, int, float]]:
    """(language, tokens, epochs) by tokens, largest first; sources that were not read are left out."""
    if not isinstance(ledger, list):
        return []
    rows = [
        (str(entry["language"]), int(entry["tokens"]), float(entry.get("epochs", 0.0)))
        for entry in ledger
        if isinstance(entry, dict) and entry.get("tokens")
    ]
    return sorted(rows, key=lambda row: -row[1])
