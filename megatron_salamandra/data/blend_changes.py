"""What of the blend a resumed run changes: held-out text may change, and is reported;
what decides the samples may not.
"""

from __future__ import annotations

from dataclasses import dataclass

from salamandra_data.blend_plan import BlendPlan, BlendSource, ShardRef


@dataclass(frozen=True)
class BlendChanges:
    """Differences between two blends, each a few words.

    Attributes:
        of_samples: what would make the same sample number stand for other text.
        of_validation: held-out text; the stream of samples is the same to the bit.
    """

    of_samples: tuple[str, ...]
    of_validation: tuple[str, ...]


def compare_blends(before: BlendPlan, now: BlendPlan) -> BlendChanges:
    """Compare two blends by content; where their files lie does not count."""
    old = {source.name: source for source in before.sources}
    new = {source.name: source for source in now.sources}
    samples = []
    if before.tokenizer.sha256 != now.tokenizer.sha256:
        samples.append("the tokenizer")
    samples += [f"{name} is new" for name in new if name not in old]
    samples += [f"{name} is gone" for name in old if name not in new]
    common = [(name, old[name], new[name]) for name in new if name in old]
    for name, was, is_now in common:
        if was.factor != is_now.factor:
            samples.append(f"the factor of {name} ({was.factor} before, {is_now.factor} now)")
        if _contents(was.shards) != _contents(is_now.shards):
            samples.append(f"the training shards of {name}")
    if not samples and _rest(before) != _rest(now):
        samples.append("the order of the sources")
    validation = [
        f"the validation shards of {name} ({_held_out(was)} before, {_held_out(is_now)} now)"
        for name, was, is_now in common
        if _contents(was.validation_shards) != _contents(is_now.validation_shards)
    ]
    return BlendChanges(tuple(samples), tuple(validation))


def _contents(shards: tuple[ShardRef, ...]) -> list[tuple[int, str, str]]:
    return [(shard.tokens, shard.idx_sha256, shard.bin_digest) for shard in shards]


def _rest(plan: BlendPlan) -> list[tuple[str, int]]:
    return [(source.name, source.weight) for source in plan.sources]


def _held_out(source: BlendSource) -> str:
    return f"{source.validation_tokens:,} tokens" if source.validation_shards else "none"
