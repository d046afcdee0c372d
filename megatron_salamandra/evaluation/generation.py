"""Continuing texts with a trained model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from megatron_salamandra.hf import HuggingFaceError, LoadedModel, OptionError

LEAST_TEMPERATURE = 1e-6
"""Logits divided by less than this overflow in fp32."""


@dataclass(frozen=True)
class Generation:
    """One continued prompt.

    Args:
        prompt: as given.
        completion: the text that follows it.
        new_tokens: ids generated, without the end symbol.
        ended: whether the model ended the document itself.
    """

    prompt: str
    completion: str
    new_tokens: int
    ended: bool


def generate_texts(
    loaded: LoadedModel,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 1234,
) -> Iterator[Generation]:
    """Continue each prompt through transformers' ``generate`` with its key/value cache.

    A prompt is preceded by the end symbol, as every document but the first was in training.
    Prompts are independent: each starts from ``seed``, so the result of one does not depend on
    the others.

    Args:
        max_new_tokens: most tokens to add; generation also stops at the end symbol.
        temperature: 0 always takes the most likely token; from 1e-6 on, larger values sample more evenly.
        top_p: sample from the fewest tokens that together have this probability, in (0, 1].
    Raises:
        OptionError: a number out of its range, or a prompt that is not text.
        HuggingFaceError: a prompt too long for the model.
    """
    check_request(prompts, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    return (_continue(loaded, prompt, max_new_tokens, temperature, top_p, seed) for prompt in prompts)


def check_request(
    prompts: Sequence[str], *, max_new_tokens: int, temperature: float, top_p: float, seed: int
) -> None:
    """Refuse values that :func:`generate_texts` cannot take; quick, so that it can be done before loading a model.

    Raises:
        OptionError: names the value.
    """
    if max_new_tokens < 1:
        raise OptionError(f"max_new_tokens = {max_new_tokens} must be at least 1")
    if temperature != 0 and not LEAST_TEMPERATURE <= temperature < math.inf:
        raise OptionError(
            f"temperature = {temperature} must be 0, or a finite number of at least {LEAST_TEMPERATURE:g}"
        )
    if not 0 < top_p <= 1:
        raise OptionError(f"top_p = {top_p} must be above 0 and at most 1")
    if not -(2**63) <= seed < 2**64:
        raise OptionError(f"seed = {seed} does not fit in 64 bits")
    for prompt in prompts:
        # Bytes of the command line that are not UTF-8 arrive as half a surrogate pair each.
        if any("\ud800" <= character <= "\udfff" for character in prompt):
            raise OptionError(f"the prompt {prompt[:40]!a} is not valid UTF-8 text")


def _continue(
    loaded: LoadedModel, prompt: str, max_new_tokens: int, temperature: float, top_p: float, seed: int
) -> Generation:
    model, tokenizer = loaded.model, loaded.tokenizer
    end, context = tokenizer.eos_token_id, model.config.max_position_embeddings
    start = [] if end is None else [end]
    prompt_ids = [*start, *tokenizer(prompt, verbose=False)["input_ids"]]
    if not prompt_ids:
        raise HuggingFaceError("an empty prompt needs a tokenizer with an end symbol")
    if len(prompt_ids) >= context:
        raise HuggingFaceError(
            f"the prompt {prompt[:40]!r}... has {len(prompt_ids)} tokens; the model reads at most {context}"
        )
    tokens = torch.tensor([prompt_ids], device=model.device)
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {}
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        output = model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=min(max_new_tokens, context - len(prompt_ids)),
            do_sample=temperature > 0,
            eos_token_id=end,
            pad_token_id=tokenizer.pad_token_id,
            **sampling,
        )
    ids = output[0].tolist()
    ended = len(ids) > len(prompt_ids) and ids[-1] == end
    ids = ids[len(start) : len(ids) - ended]
    # Decoded together, because the first space of a text is dropped when decoding.
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    alone = tokenizer.decode(ids[: len(prompt_ids) - len(start)], skip_special_tokens=True)
    return Generation(
        prompt=prompt,
        completion=whole.removeprefix(alone),
        new_tokens=len(ids) + len(start) - len(prompt_ids),
        ended=ended,
    )
