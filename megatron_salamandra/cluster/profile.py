"""What a cluster is like, as a YAML file: one source of truth for submission, node checks, planning and containers."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from megatron_salamandra.forecast import Machine
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE
from megatron_salamandra.foundation.names import name_hint
from megatron_salamandra.foundation.yaml_files import read_yaml_mapping

_PROFILES = Path(__file__).parent / "profiles"
# As sbatch reads them: days-hours[:minutes[:seconds]], hours:minutes:seconds, minutes[:seconds].
_TIMES = (
    re.compile(r"(?P<days>\d+)-(?P<hours>\d+)(?::(?P<minutes>\d+)(?::(?P<seconds>\d+))?)?"),
    re.compile(r"(?P<hours>\d+):(?P<minutes>\d+):(?P<seconds>\d+)"),
    re.compile(r"(?P<minutes>\d+)(?::(?P<seconds>\d+))?"),
)


class ProfileError(UserError):
    """A cluster profile is missing or wrong."""

    exit_code = EXIT_USAGE


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Part):
    """Where facts of a profile come from."""

    url: str
    date: datetime.date | None = Field(default=None, description="The date it carries.")
    facts: str = Field(description="Which facts.")


class Node(_Part):
    """One node, as a job sees it."""

    gpus: int = Field(ge=0, description="GPUs; ranks of a node where there are any.")
    gpu: str | None = Field(default=None, description="Name of the GPU.")
    gpu_memory_gib: float | None = Field(default=None, gt=0, description="Memory of one GPU, in GiB.")
    gpu_bandwidth_gb_s: float | None = Field(
        default=None, gt=0, description="Bandwidth of that memory, in GB/s, as its maker states it."
    )
    gpu_bf16_teraflops: float | None = Field(
        default=None, gt=0, description="Dense bf16 peak of one GPU, in TFLOP/s."
    )
    gpu_fp8_teraflops: float | None = Field(
        default=None, gt=0, description="Dense fp8 peak of one GPU, in TFLOP/s; none where it has no fp8."
    )
    gpu_watts: float | None = Field(
        default=None, gt=0, description="Rated power of one GPU, in W; for estimates of energy."
    )
    gpu_hour_price: float | None = Field(
        default=None, gt=0, description="Price of one GPU for an hour, where it is public."
    )
    currency: str | None = Field(default=None, description="Of gpu_hour_price, such as EUR.")
    link_gb_s: float | None = Field(
        default=None, gt=0, description="NVLink of one GPU in one direction, in GB/s."
    )
    adapters: int | None = Field(default=None, ge=1, description="Network adapters that the GPUs use.")
    adapter_gbit_s: float | None = Field(default=None, gt=0, description="Rate of one adapter, in Gbit/s.")
    cpus: int = Field(ge=1, description="Usable CPU cores.")
    memory_gib: float | None = Field(default=None, gt=0, description="Host memory, in GiB.")
    interconnect: str | None = Field(default=None, description="Network between nodes.")

    @model_validator(mode="after")
    def _price_has_a_currency(self) -> Node:
        if (self.gpu_hour_price is None) is not (self.currency is None):
            raise ValueError("gpu_hour_price and currency belong together")
        return self


class Limits(_Part):
    """What the site allows."""

    time: str | None = Field(default=None, description="Longest job, as SLURM writes it: 3-00:00:00.")
    may_requeue: bool = Field(default=True, description="Whether a job may go back into the queue.")
    internet: bool = Field(default=False, description="Whether compute nodes reach the internet.")

    @field_validator("time")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None:
            seconds_of(value)
        return value


class Container(_Part):
    """How ranks are put into an image."""

    runtime: Literal["singularity", "apptainer", "enroot", "pyxis", "edf"]
    mounts: tuple[str, ...] = ()


class ClusterProfile(_Part):
    """One cluster, or one partition of it."""

    name: str
    description: str
    sources: tuple[Source, ...] = ()
    node: Node
    tasks_per_node: Annotated[int, Field(ge=1)]
    cpus_per_task: Annotated[int, Field(ge=1)]
    limits: Limits = Limits()
    sbatch: dict[str, str] = Field(
        default_factory=dict, description="Options of sbatch by their long names: partition, qos, gres, ..."
    )
    without_gpus: dict[str, str] = Field(
        default_factory=dict,
        description="Options of sbatch for work that needs no GPU (data, export), in place of `sbatch`.",
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="Variables of the ranks; one that the caller has set stays."
    )
    container: Container | None = None
    node_check: bool = Field(default=True, description="Whether nodes are looked at before a round.")

    @property
    def machine(self) -> Machine:
        """The GPU, its node and its network, for estimates of time.

        Raises:
            ProfileError: the profile leaves out what such an estimate needs; names the keys.
        """
        node = self.node
        needed = {
            "gpu": node.gpu,
            "gpu_bf16_teraflops": node.gpu_bf16_teraflops,
            "gpu_memory_gib": node.gpu_memory_gib,
            "gpu_bandwidth_gb_s": node.gpu_bandwidth_gb_s,
            "link_gb_s": node.link_gb_s,
            "adapters": node.adapters,
            "adapter_gbit_s": node.adapter_gbit_s,
        }
        missing = [f"node.{key}" for key, value in needed.items() if value is None]
        if missing or node.gpus == 0:
            raise ProfileError(
                f"the profile {self.name} does not say what its GPUs can do: {', '.join(missing) or 'node.gpus is 0'}"
                "\n  name another cluster, or a profile of your own with these keys"
            )
        return Machine(
            gpu=str(node.gpu),
            bf16_teraflops=node.gpu_bf16_teraflops or 0.0,
            fp8_teraflops=node.gpu_fp8_teraflops,
            memory_gib=node.gpu_memory_gib or 0.0,
            memory_gb_s=node.gpu_bandwidth_gb_s or 0.0,
            gpus_per_node=node.gpus,
            link_gb_s=node.link_gb_s or 0.0,
            adapters=node.adapters or 0,
            adapter_gbit_s=node.adapter_gbit_s or 0.0,
            watts=node.gpu_watts,
            gpu_hour_price=node.gpu_hour_price,
            currency=node.currency,
            host_memory_gib=node.memory_gib,
        )

    @field_validator("sbatch", "without_gpus", "environment", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return {key: str(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def profile_names() -> list[str]:
    """Names of the profiles that come with the project, sorted."""
    return sorted(path.stem for path in _PROFILES.glob("*.yaml"))


def load_profile(reference: str) -> ClusterProfile:
    """The profile of that name, or in that file.

    Raises:
        ProfileError: there is none, or it is wrong; names file, key and what would work.
    """
    path = Path(reference)
    if path.suffix not in (".yaml", ".yml") and "/" not in reference:
        path = _PROFILES / f"{reference}.yaml"
        if not path.is_file():
            raise ProfileError(
                f"--cluster {reference}: no such profile\n  {name_hint(reference, profile_names())}"
            )
    contents = read_yaml_mapping(path, error_class=ProfileError)
    try:
        profile = ClusterProfile.model_validate(contents)
    except ValidationError as error:
        problems = [
            f"{path}: {'.'.join(map(str, detail['loc']))}: {detail['msg']}"
            for detail in error.errors(include_url=False)
        ]
        raise ProfileError("\n".join(problems)) from None
    tasks, cpus = profile.tasks_per_node, profile.cpus_per_task
    if tasks * cpus > profile.node.cpus:
        raise ProfileError(
            f"{path}: tasks_per_node = {tasks} times cpus_per_task = {cpus} is {tasks * cpus}, but a node has "
            f"{profile.node.cpus} CPUs\n  lower cpus_per_task to {profile.node.cpus // tasks}"
        )
    return profile


def seconds_of(time: str) -> int:
    """Seconds of a time as SLURM reads it: ``3-00:00:00``, ``3-12``, ``12:00:00``, ``90:00`` or ``90`` (minutes).

    Two numbers with a colon are minutes and seconds, not hours.

    Raises:
        ValueError: it is not one.
    """
    found = next((match for form in _TIMES if (match := form.fullmatch(time))), None)
    if found is None:
        raise ValueError(f"{time!r} is not a time such as 3-00:00:00, 12:00:00 or 90 (minutes)")
    parts = {name: int(value) for name, value in found.groupdict(default="0").items()}
    hours = parts.get("days", 0) * 24 + parts.get("hours", 0)
    return (hours * 60 + parts["minutes"]) * 60 + parts["seconds"]
