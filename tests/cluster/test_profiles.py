"""Cluster profiles: those that come with the project, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_salamandra.cluster import ProfileError, load_profile, profile_names, seconds_of


def test_the_profiles_of_the_project() -> None:
    assert profile_names() == ["alps-clariden", "dgx-h100", "generic", "leonardo-booster", "marenostrum5"]


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_fits_on_its_node_and_names_its_sources(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.tasks_per_node == profile.node.gpus
    assert profile.tasks_per_node * profile.cpus_per_task <= profile.node.cpus
    assert name == "generic" or profile.sources
    if profile.limits.time:
        assert seconds_of(profile.limits.time) >= 12 * 3600


@pytest.mark.parametrize("name", profile_names())
def test_values_of_infiniband_fit_their_fields(name: str) -> None:
    environment = load_profile(name).environment
    assert int(environment.get("NCCL_IB_TIMEOUT", 0)) < 2**5
    assert int(environment.get("NCCL_IB_RETRY_CNT", 0)) < 2**3


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("3-00:00:00", 259200),
        ("12:00:00", 43200),
        ("90", 5400),
        ("1-06:30:00", 109800),
        ("2:05", 125),
        ("3-0", 259200),
        ("1-12:30", 131400),
    ],
)
def test_times_as_slurm_writes_them(time: str, seconds: int) -> None:
    assert seconds_of(time) == seconds


@pytest.mark.parametrize("time", ["", "soon", "1d", "-5", "1:2:3:4", "3-"])
def test_other_times_are_refused(time: str) -> None:
    with pytest.raises(ValueError, match="is not a time such as"):
        seconds_of(time)


def test_an_unknown_profile_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(ProfileError, match="did you mean marenostrum5"):
        load_profile("marenostrum-5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cpus_per_task: 30", "tasks_per_node = 4 times cpus_per_task = 30 is 120, but a node has 80"),
        ("tasks: 4", "tasks: Extra inputs"),
        ("limits: {time: 3 days}", "limits.time: .*is not a time"),
        ("node: {gpus: 4}", "node.cpus: Field required"),
    ],
)
def test_a_wrong_profile_is_refused_by_file_and_key(tmp_path: Path, change: str, message: str) -> None:
    text = "name: mine\ndescription: d\nnode: {gpus: 4, cpus: 80}\ntasks_per_node: 4\ncpus_per_task: 20\n"
    key = change.split(":")[0]
    kept = [line for line in text.splitlines() if not line.startswith(f"{key}:")]
    (tmp_path / "mine.yaml").write_text("\n".join([*kept, change]))
    with pytest.raises(ProfileError, match=rf"mine\.yaml: {message}"):
        load_profile(str(tmp_path / "mine.yaml"))
