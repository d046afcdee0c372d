"""The connection to a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from salamandra_data.errors import DataError
from salamandra_data.execution.settings import RaySettings


@contextmanager
def ray_cluster(settings: RaySettings) -> Iterator[None]:
    """Be connected while the block runs; a connection that was there before stays.

    Raises:
        DataError: Ray is not installed, does not answer, or has no room for a single task on this machine.
    """
    try:
        import ray
    except ImportError as error:
        raise DataError(
            "--executor ray needs the package ray\n  pip install 'megatron-salamandra[data,ray]'"
        ) from error
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address=settings.address, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise DataError(f"--ray-address {settings.address}: no Ray cluster answers: {error}") from error
    try:
        if settings.address is None:  # a cluster elsewhere may yet grow
            _check_room(settings, ray.cluster_resources())
        yield
    finally:
        ray.shutdown()


def _check_room(settings: RaySettings, there: Mapping[str, float]) -> None:
    """Refuse tasks that would wait for ever."""
    cpus, memory_gb = there.get("CPU", 0), there.get("memory", 0) / 2**30
    if cpus < settings.cpus_per_task or memory_gb < settings.cpus_per_task * settings.memory_per_cpu_gb:
        raise DataError(
            f"--cpus-per-task {settings.cpus_per_task}, --memory-per-cpu {settings.memory_per_cpu_gb:g}: Ray has "
            f"{cpus:g} cores and {memory_gb:.1f} GiB for tasks on this machine\n"
            "  ask for less, or name a cluster with --ray-address"
        )
