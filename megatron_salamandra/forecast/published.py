"""Throughput that others published, as workloads of ours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from megatron_salamandra.forecast.machine import Machine
from megatron_salamandra.forecast.rates import Rates
from megatron_salamandra.forecast.step_time import step_seconds
from megatron_salamandra.forecast.workload import ModelShape, Recompute, Software, Workload, even_stages
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.yaml_files import read_yaml_mapping

_FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class PublishedRow:
    """One measurement.

    Attributes:
        value: tokens per second and GPU, or TFLOP/s per GPU with attention counted in full.
        counts_flops: which of the two.
        assumed: what the source leaves open, and what was taken.
    """

    name: str
    title: str
    source: str
    url: str
    assumed: str
    machine: Machine
    work: Workload
    value: float
    counts_flops: bool

    def predicted(self, rates: Rates) -> float:
        """What the model of step time says, in the unit of :attr:`value`."""
        seconds = step_seconds(self.work, self.machine, rates).total
        tokens = self.work.tokens_per_step / seconds / self.work.gpus
        if not self.counts_flops:
            return tokens
        return tokens * self.work.shape.flops_per_token(self.work.sequence, causal=False) / 1e12


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """All of them, in the order of their table."""
    contents = read_yaml_mapping(_FILE, error_class=UserError)
    return tuple(_row(entry, contents) for entry in contents["rows"])


def _row(entry: dict[str, Any], contents: dict[str, Any]) -> PublishedRow:
    shape = ModelShape(**contents["models"][entry["model"]])
    software = dict(contents["software"][entry["software"]])
    software["recompute"] = Recompute(**software.pop("recompute", {}))
    source = contents["sources"][entry["source"]]
    pipeline = entry.get("pipeline", 1)
    work = Workload(
        shape=shape,
        software=Software(**software),
        sequence=entry["sequence"],
        micro_batch=entry["micro_batch"],
        micro_batches=entry.get("micro_batches", 1),
        tensor=entry.get("tensor", 1),
        pipeline=pipeline,
        context=entry.get("context", 1),
        data=entry["data"],
        stages=even_stages(shape.layers, pipeline * entry.get("chunks", 1)),
    )
    return PublishedRow(
        name=entry["name"],
        title=_title(entry, work),
        source=entry["source"],
        url=source["url"],
        assumed=source.get("assumed", ""),
        machine=Machine(**contents["machines"][entry["machine"]]),
        work=work,
        value=float(entry["teraflops"] if "teraflops" in entry else entry["tokens"]),
        counts_flops="teraflops" in entry,
    )


def _title(entry: dict[str, Any], work: Workload) -> str:
    sizes = {"TP": work.tensor, "PP": work.pipeline, "VPP": work.chunks, "CP": work.context}
    layout = "".join(f" {name}{size}" for name, size in sizes.items() if size > 1)
    kind = "FSDP" if work.software.sharding == "weights" else "DP"
    return f"{entry['model']}{layout} {kind}{work.data}, micro-batch {work.micro_batch}, S {work.sequence:,}"
