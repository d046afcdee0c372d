"""Reads an export as its users do, with whatever transformers is importable, and prints what came out as JSON.

A program of its own without any of our packages: ``python read_export.py QUESTIONS``, a JSON file with ``export``,
``refused`` (an export without a fast tokenizer), ``texts``, ``chats`` and ``tokens``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers


def answers(questions: dict[str, Any]) -> dict[str, Any]:
    """What this version of transformers makes of an export."""
    export = questions["export"]
    config = transformers.AutoConfig.from_pretrained(export)
    rope = getattr(config, "rope_parameters", None)
    if rope is None:
        rope = {**(config.rope_scaling or {}), "rope_theta": config.rope_theta}
    model = transformers.AutoModelForCausalLM.from_pretrained(export).eval()
    with torch.no_grad():
        logits = model(torch.tensor(questions["tokens"])).logits
    plain = transformers.AutoTokenizer.from_pretrained(export)
    chat = transformers.AutoTokenizer.from_pretrained(export, split_special_tokens=False)
    slow = transformers.AutoTokenizer.from_pretrained(export, use_fast=False)
    text_ids = [plain(text)["input_ids"] for text in questions["texts"]]
    chat_ids = [chat(text)["input_ids"] for text in questions["chats"]]
    try:
        transformers.AutoTokenizer.from_pretrained(questions["refused"])
        refusal = "loaded"
    except Exception as error:
        refusal = f"{type(error).__name__}: {error}"
    return {
        "versions": [transformers.__version__, tokenizers.__version__],
        "rope": {name: rope[name] for name in sorted(rope) if rope[name] is not None},
        "dtype": str(model.dtype),
        "special": [config.bos_token_id, config.eos_token_id, config.pad_token_id],
        "logits": logits.tolist(),
        "text_ids": text_ids,
        "text_decoded": [plain.decode(ids) for ids in text_ids],
        "chat_ids": chat_ids,
        "chat_decoded": [chat.decode(ids) for ids in chat_ids],
        "slow_ids": [slow(text)["input_ids"] for text in questions["texts"]],
        "padding_side": plain.padding_side,
        "padded": plain(["a", "Tots els éssers"], padding=True)["attention_mask"],
        "refusal": refusal,
    }


if __name__ == "__main__":
    print(json.dumps(answers(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
