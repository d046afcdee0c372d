"""Job arrays on a cluster with a profile: checked before they are submitted, and waited for where that is asked."""

from __future__ import annotations

import os
from pathlib import Path

import execution_tasks
import pytest
from execution_tasks import WriteSquare, WriteSum
from slurm_site_stand_in import SiteStandIn
from slurm_stand_in import install_slurm_stand_in

from megatron_salamandra.cli.data._machines import checked_settings
from megatron_salamandra.cluster import Refused
from megatron_salamandra.foundation.errors import UserError
from salamandra_data.errors import DataError
from salamandra_data.execution import SlurmSettings, Stage, run_stages, slurm
from salamandra_data.option_groups import ExecutorOptions

PROFILE = (
    "name: mine\ndescription: d\nnode: {gpus: 4, cpus: 80}\ntasks_per_node: 4\ncpus_per_task: 20\n"
    "limits: {time: '3-00:00:00'}\nsbatch: {partition: acc, gres: 'gpu:4', qos: acc_ehpc}\n"
    "without_gpus: {partition: acc, qos: acc_debug, account: bsc88, nodes: 1, exclusive: '', constraint: h100}\n"
)


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(PROFILE)
    return str(path)


def settings_of(**options: object) -> SlurmSettings:
    found = checked_settings(ExecutorOptions(executor="slurm", **options))  # type: ignore[arg-type]
    assert isinstance(found, SlurmSettings)
    return found


def test_a_profile_gives_what_the_command_line_does_not(profile: str) -> None:
    found = settings_of(cluster=profile)
    assert (found.partition, found.qos, found.account) == ("acc", "acc_debug", "bsc88")
    assert found.options == {"constraint": "h100"}  # what is of whole nodes is not for a task
    found = settings_of(
        cluster=profile, slurm_partition="gpp", slurm_qos="gp", slurm_option=("constraint=x",)
    )
    assert (found.partition, found.qos, found.options) == ("gpp", "gp", {"constraint": "x"})


def test_a_profile_without_such_options_needs_a_partition(profile: str) -> None:
    with pytest.raises(
        DataError, match="--cluster generic: the profile has no partition for work without GPUs"
    ):
        settings_of(cluster="generic")
    with pytest.raises(UserError, match="did you mean marenostrum5"):
        settings_of(cluster="marenostrum")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slurm_account": "bsc99"}, "account bsc99"),
        ({"slurm_partition": "ac"}, "did you mean acc"),
        ({"slurm_time": "04:00:00"}, "04:00:00 is more than qos acc_debug allows"),
        ({"slurm_time": "9-00:00:00"}, "--slurm-time 9-00:00:00 is more than the profile allows"),
        ({"cpus_per_task": 81, "slurm_time": "10"}, "81 CPUs of a node are asked for"),
        ({"slurm_time": "10"}, "qos acc_debug lets 1 jobs be in the queue: 0 of yours are, and 5 would be"),
    ],
)
def test_what_would_wait_in_vain_is_refused_before_anything_is_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str, options: dict[str, object], message: str
) -> None:
    site = SiteStandIn(tmp_path / "site")
    monkeypatch.setenv("PATH", str(site.programs), prepend=":")
    stages = [Stage("squares", 5, WriteSquare(tmp_path, -1))]
    with pytest.raises(Refused, match=message):
        run_stages(stages, settings_of(cluster=profile, **options), tmp_path / "work")
    assert not site.asked("sbatch")


def test_waiting_submits_again_what_failed_as_long_as_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment, jobs = install_slurm_stand_in(tmp_path / "slurm")
    monkeypatch.setenv("PATH", environment["PATH"])
    support = str(Path(execution_tasks.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", f"{support}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(slurm, "_LOOK_SECONDS", 0.05)
    out = tmp_path / "o u t"
    out.mkdir()
    stages = [Stage("squares", 2, WriteSquare(out, -1)), Stage("sum", 1, WriteSum(out))]
    # The first task that starts is killed, as by the kernel when memory is short.
    once = tmp_path / "once"
    setup = f"[ -e {once} ] || {{ touch {once}; kill -9 $$; }}"
    settings = SlurmSettings(partition="cpu", setup=setup, wait=True)
    assert run_stages(stages, settings, tmp_path / "w o r k").done
    assert (out / "sum").read_text() == "1"
    assert len(list(jobs.iterdir())) == 4  # both stages, twice

    always = SlurmSettings(partition="cpu", setup="kill -9 $$", wait=True)
    with pytest.raises(DataError, match="squares: 2 of 2 tasks are not done"):
        run_stages(stages, always, tmp_path / "another")
    assert len(list(jobs.iterdir())) == 8
