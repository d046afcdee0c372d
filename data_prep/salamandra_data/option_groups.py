"""Options that several data commands take. Light to import: it is read for every command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, model_validator

from megatron_salamandra.foundation.options import Count, Option, Options, PathPattern, PathText
from megatron_salamandra.foundation.written_paths import expanded_path
from salamandra_data.errors import DataError
from salamandra_data.storage import Location, as_location

if TYPE_CHECKING:
    from salamandra_data.execution import ExecutorSettings, SlurmSettings
    from salamandra_data.readers import DocumentKeys


def _on_disk(place: Any) -> Path:
    written = as_location(place)
    if not isinstance(written, Path):
        raise ValueError(
            f"{place!r} is a URL, and output goes to disk: name a directory or file there, and copy it afterwards"
        )
    return written


OutputPath = Annotated[Path, BeforeValidator(_on_disk)]
"""A file or directory to write, which is never behind a URL."""

Place = Annotated[Location, BeforeValidator(as_location), PathText()]
"""A path or an fsspec URL."""


def _named(text: str) -> str:
    name, equals, path = text.partition("=")
    if not equals or "/" in name or os.path.lexists(text):
        return expanded_path(text, existing_as_written=True)
    return f"{name}={expanded_path(path, existing_as_written=True)}"


NamedPath = Annotated[str, AfterValidator(_named)]
"""``NAME=PATH``, or a path or URL alone."""


class InputOptions(Options):
    """The input files, the keys of their records, and what malformed lines do."""

    title: ClassVar[str] = "documents"

    input: Annotated[
        tuple[PathPattern, ...],
        Option(
            "files, directories or patterns: JSON lines (.jsonl, .ndjson, .json), plain text (.txt, one document "
            "per file), each also .gz or .zst, .parquet and .arrow; or fsspec URLs of these",
            metavar="PATH",
            decides_output=False,
        ),
    ]
    text_key: Annotated[str, Option("key of the text", metavar="KEY")] = "text"
    language: Annotated[str | None, Option("language of every document; wins over the key", metavar="XX")] = (
        None
    )
    language_key: Annotated[str, Option("key of a document's language", metavar="KEY")] = "language"
    on_error: Annotated[
        Literal["fail", "skip"],
        Option(
            "a malformed line ends the command, or is counted and passed over",
        ),
    ] = "fail"

    @property
    def keys(self) -> DocumentKeys:
        """Which keys hold what."""
        from salamandra_data.readers import DocumentKeys

        return DocumentKeys(self.text_key, self.language, self.language_key)

    @property
    def skip_malformed(self) -> bool:
        """Whether malformed lines are passed over."""
        return self.on_error == "skip"


class NaturalShareOptions(Options):
    """What alpha 1 is proportional to, for the commands that train tokenizers."""

    language_sizes: Annotated[
        Path | None,
        Option(
            "token counts of the corpus that the tokenizer is for, of which the input is a sample, such as "
            "configs/data/salamandra-corpus-a.yaml; natural shares are of these (default: bytes of the input)",
            metavar="FILE",
        ),
    ] = None
    factors: Annotated[
        Path | None,
        Option(
            "language factors, such as configs/data/salamandra-pretraining.yaml, that multiply --language-sizes: "
            "natural shares are then those of the blend that is trained on",
            metavar="FILE",
        ),
    ] = None


class ReshardOptions(Options):
    """Where new shards go, and which tokenizer the old ones are of."""

    out: Annotated[OutputPath, Option("directory for the new shards", metavar="DIR", decides_output=False)]
    tokenizer: Annotated[
        Path | None,
        Option(
            "the shards' tokenizer (default: tokenizer.model beside the first of them)",
            metavar="MODEL",
            decides_output=False,
        ),
    ] = None


class ExecutorOptions(Options):
    """Which machines do the work. None of it decides the output."""

    title: ClassVar[str] = "machines"

    executor: Annotated[
        Literal["local", "slurm", "ray"],
        Option(
            "processes of this machine, SLURM job arrays, or a Ray cluster; machines share a file system",
            decides_output=False,
        ),
    ] = "local"
    workers: Annotated[
        Count | None,
        Option(
            "tasks that run at once (default: 1 on this machine; as many as there are places elsewhere)",
            decides_output=False,
        ),
    ] = None
    cpus_per_task: Annotated[
        Count | None, Option("SLURM and Ray: cores of a task", default_text="1", decides_output=False)
    ] = None
    memory_per_cpu: Annotated[
        Count | None,
        Option(
            "SLURM and Ray: memory of a task per core",
            metavar="GIB",
            default_text="4",
            decides_output=False,
        ),
    ] = None
    cluster: Annotated[
        str | None,
        Option(
            "a cluster's profile, by name or YAML file: its options for work without GPUs, its limits",
            metavar="NAME",
            decides_output=False,
        ),
    ] = None
    slurm_partition: Annotated[
        str | None,
        Option(
            "where to run; needed for --executor slurm, unless --cluster says it",
            metavar="NAME",
            decides_output=False,
        ),
    ] = None
    slurm_time: Annotated[
        str | None,
        Option("limit of one task", metavar="TIME", default_text="04:00:00", decides_output=False),
    ] = None
    slurm_account: Annotated[
        str | None, Option("who pays, if the site wants one", metavar="NAME", decides_output=False)
    ] = None
    slurm_qos: Annotated[
        str | None, Option("quality of service, if the site wants one", metavar="NAME", decides_output=False)
    ] = None
    slurm_option: Annotated[
        tuple[str, ...],
        Option(
            "a further option of sbatch, such as constraint=highmem or exclusive; may be given several times",
            metavar="NAME[=VALUE]",
            repeat=True,
            decides_output=False,
        ),
    ] = ()
    slurm_setup: Annotated[
        str | None,
        Option(
            "shell command before each task, such as 'module load gcc'",
            metavar="COMMAND",
            decides_output=False,
        ),
    ] = None
    slurm_wait: Annotated[
        bool,
        Option("wait for the jobs, and submit again what failed", decides_output=False),
    ] = False
    ray_address: Annotated[
        str | None,
        Option("of a running cluster; one is started here if none", metavar="ADDRESS", decides_output=False),
    ] = None

    @model_validator(mode="after")
    def _nothing_for_other_executors(self) -> Self:
        for name in _OF_OTHERS[self.executor]:
            if getattr(self, name, None):
                option = "--" + name.replace("_", "-")
                raise ValueError(f"{option} means nothing to --executor {self.executor}: leave it away")
        if self.executor == "slurm" and self.slurm_partition is None and self.cluster is None:
            raise ValueError(
                "--executor slurm: name the partition with --slurm-partition (sinfo lists them), or a --cluster"
            )
        return self

    def settings(
        self,
        site: Mapping[str, str] | None = None,
        before_submitting: Callable[[SlurmSettings, int], None] | None = None,
    ) -> ExecutorSettings:
        """These options as the settings of an executor.

        Args:
            site: options of sbatch that the cluster's profile has; what was given on the command line wins.
            before_submitting: of the settings for SLURM.
        Raises:
            DataError: nobody names a partition.
        """
        from salamandra_data.execution import LocalSettings, RaySettings, SlurmSettings

        if self.executor == "local":
            return LocalSettings(workers=self.workers or 1)
        resources = _given(cpus_per_task=self.cpus_per_task, memory_per_cpu_gb=self.memory_per_cpu)
        if self.executor == "ray":
            return RaySettings(address=self.ray_address, workers=self.workers, **resources)
        others = {name: value for name, value in (site or {}).items() if name not in _OF_THE_TASKS}
        partition, account, qos = (others.pop(name, None) for name in ("partition", "account", "qos"))
        partition = self.slurm_partition or partition
        if partition is None:
            raise DataError(
                f"--cluster {self.cluster}: the profile has no partition for work without GPUs (`without_gpus`)\n"
                "  name one with --slurm-partition (sinfo lists them)"
            )
        return SlurmSettings(
            partition=partition,
            max_running=self.workers,
            qos=self.slurm_qos or qos,
            account=self.slurm_account or account,
            options={**others, **dict(_name_and_value(option) for option in self.slurm_option)},
            setup=self.slurm_setup,
            wait=self.slurm_wait,
            before_submitting=before_submitting,
            **_given(time=self.slurm_time),
            **resources,
        )


class StagedExecutorOptions(ExecutorOptions):
    """The same, where the number of tasks can be chosen."""

    tasks: Annotated[
        Count | None,
        Option(
            "into how many tasks SLURM and Ray cut each stage",
            default_text="64",
            decides_output=False,
        ),
    ] = None

    @property
    def stage_tasks(self) -> int:
        """Into how many tasks a stage is cut where machines do the work."""
        return self.tasks or _TASKS


_TASKS = 64
_OF_SLURM = (
    *(
        "cluster",
        "slurm_partition",
        "slurm_time",
        "slurm_account",
        "slurm_qos",
        "slurm_option",
        "slurm_setup",
    ),
    "slurm_wait",
)
_OF_THE_TASKS = ("cpus-per-task", "mem", "mem-per-cpu", "nodes", "ntasks-per-node", "time", "exclusive")
"""Options of a profile that are of whole nodes: a task has its own."""
_OF_CLUSTERS = ("tasks", "cpus_per_task", "memory_per_cpu")
_OF_OTHERS = {
    "local": (*_OF_CLUSTERS, *_OF_SLURM, "ray_address"),
    "slurm": ("ray_address",),
    "ray": _OF_SLURM,
}


def _given(**values: Any) -> dict[str, Any]:
    """What was given on the command line; the settings have the defaults."""
    return {name: value for name, value in values.items() if value is not None}


def _name_and_value(option: str) -> tuple[str, str]:
    name, _, value = option.partition("=")
    return name.removeprefix("--"), value
