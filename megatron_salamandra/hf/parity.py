"""Comparing the logits of an export, as transformers computes them, with reference logits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from megatron_salamandra.hf.errors import HuggingFaceError
from megatron_salamandra.hf.loading import load_llama


@dataclass(frozen=True)
class LogitParity:
    """Differences between two sets of logits of the same tokens.

    Args:
        positions: token positions compared.
        max_difference: largest absolute difference of a logit.
        mean_difference: mean absolute difference.
        max_logit: largest absolute reference logit, to judge the differences by.
        same_argmax: share of positions where both predict the same next token, 0 to 1.
    """

    positions: int
    max_difference: float
    mean_difference: float
    max_logit: float
    same_argmax: float

    def summary(self) -> str:
        """One line for people."""
        return (
            f"logits differ by at most {self.max_difference:.2e} (mean {self.mean_difference:.2e}, largest logit "
            f"{self.max_logit:.2f}) over {self.positions:,} positions; same prediction at {self.same_argmax:.2%}"
        )


def compare_logits(logits: Tensor, reference: Tensor) -> LogitParity:
    """Compare two tensors [..., V] of equal shape, in fp32.

    Raises:
        HuggingFaceError: shapes differ.
    """
    if logits.shape != reference.shape:
        raise HuggingFaceError(
            f"logits of shape {list(logits.shape)} cannot be compared with {list(reference.shape)}"
        )
    logits, reference = logits.detach().float().cpu(), reference.detach().float().cpu()
    difference = (logits - reference).abs()
    return LogitParity(
        positions=reference.numel() // reference.shape[-1],
        max_difference=difference.max().item(),
        mean_difference=difference.mean().item(),
        max_logit=reference.abs().max().item(),
        same_argmax=(logits.argmax(-1) == reference.argmax(-1)).float().mean().item(),
    )


def export_logits(directory: Path, tokens: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Logits that transformers computes from an export, on CPU.

    Args:
        directory: an export.
        tokens: [batch, sequence], int64.
        dtype: of weights and arithmetic.
    Returns:
        [batch, sequence, V] in ``dtype``.
    Raises:
        HuggingFaceError: not a model directory, or damaged.
        MissingPackage: transformers is not installed.
    """
    model = load_llama(directory, dtype=dtype)
    with torch.no_grad():
        logits: Tensor = model(input_ids=tokens).logits
    return logits


def check_export(
    directory: Path, tokens: Tensor, reference: Tensor, *, dtype: torch.dtype = torch.float32
) -> LogitParity:
    """Run an export on ``tokens`` [batch, sequence] and compare with ``reference`` [batch, sequence, V]."""
    return compare_logits(export_logits(directory, tokens, dtype=dtype), reference)
