"""A job against what SLURM says of the queue: limits, nodes, account and qos, in the words of several versions."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from slurm_site_stand_in import ASSOCIATIONS, CONFIG, NODES, PARTITIONS, QOS, SiteStandIn

from megatron_salamandra.cluster import slurm_site
from megatron_salamandra.cluster.objection import Findings
from megatron_salamandra.cluster.queue_checks import QueueRequest, check_queue

FITS = QueueRequest(
    4, 80, 4, 490_000, 86_400, partition="acc", account="bsc88", qos="acc_ehpc", constraint="h100"
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteStandIn:
    made = SiteStandIn(tmp_path)
    monkeypatch.setenv("PATH", str(made.programs), prepend=":")
    return made


def told(found: Findings) -> str:
    return "\n".join(entry.text for entry in found.objections)


def test_a_job_that_fits_has_nothing_against_it(site: SiteStandIn) -> None:
    found = check_queue(FITS)
    assert (told(found), found.notes) == ("", [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"partition": "ac"}, "partition ac is not on this cluster\n  did you mean acc?"),
        ({"partition": "gpp", "constraint": None}, "partition gpp takes no jobs now: its state is DRAIN"),
        ({"partition": "gpp", "nodes": 1, "constraint": None}, "fewer than partition gpp wants of a job"),
        ({"nodes": 13}, "13 nodes are more than partition acc has\n  at most 12"),
        ({"nodes": 101}, "more than partition acc allows for a job\n  at most 100"),
        ({"nodes": 9}, "9 nodes are more than qos acc_ehpc allows for a job\n  at most 8"),
        ({"seconds": 300_000}, "3-11:20:00 is more than partition acc allows\n  at most --time 3-00:00:00"),
        ({"qos": "acc_debug", "nodes": 2}, "1-00:00:00 is more than qos acc_debug allows"),
        ({"qos": "acc_xlong"}, "does not take qos acc_xlong\n  it takes acc_ehpc, acc_debug"),
        ({"qos": "acc_xlong"}, "qos acc_xlong: .* may not use it with account bsc88\n  yours are acc_debug"),
        ({"account": "bsc99"}, "account bsc99: .* may not charge it\n  yours are bsc88, ehpc01 \\(acc\\)"),
        ({"account": "ehpc01", "partition": "gpp"}, "account ehpc01: .* may not charge it in partition gpp"),
        ({"account": "ehpc01", "qos": "acc_debug"}, "qos acc_debug: .* with account ehpc01"),
        ({"account": "ehpc01", "seconds": 90_000}, "your association with account ehpc01 allows"),
        ({"cpus": 96}, "96 CPUs of a node are asked for, and nodes of partition acc have 80"),
        ({"gpus": 8}, "8 GPUs of a node are asked for, and nodes of partition acc have 4"),
        ({"memory_mib": 600_000}, "600000 MiB of memory of a node"),
        (
            {"constraint": "h1000"},
            "constraint h1000: no node of partition acc has h1000\n  did you mean h100",
        ),
        (
            {"nodes": 12, "constraint": "h100&fast"},
            "12 nodes are asked for, and 11 of partition acc have what",
        ),
        ({"jobs": 21}, "lets 20 jobs be in the queue: 0 of yours are, and 21 would be submitted"),
    ],
)
def test_what_the_queue_would_refuse_or_never_start(
    site: SiteStandIn, change: dict[str, object], message: str
) -> None:
    import re

    text = told(check_queue(replace(FITS, **change)))  # type: ignore[arg-type]
    assert re.search(message, text), text


def test_jobs_of_the_user_count_against_the_most_that_may_be_in_the_queue(site: SiteStandIn) -> None:
    site.set("squeue", "--noheader", "".join(f"7_{task}\n" for task in range(20)))
    found = check_queue(FITS)
    assert "lets 20 jobs be in the queue: 20 of yours are" in told(found)
    assert found.objections[0].forcible  # some of them may have ended by then


def test_without_a_time_the_partitions_default_must_be_enough(site: SiteStandIn) -> None:
    site.set("scontrol", "partition", PARTITIONS.replace("DefaultTime=12:00:00", "DefaultTime=00:05:00"))
    found = check_queue(replace(FITS, seconds=None), 720, "for a start and a stop")
    assert "without --time a job of partition acc gets 300 s, which are not enough for a start" in told(found)
    assert "--time 12 (minutes)" in told(found)


def test_the_default_partition_is_meant_where_none_is_named(site: SiteStandIn) -> None:
    assert "13 nodes are more than partition acc has" in told(
        check_queue(replace(FITS, partition=None, nodes=13))
    )


def test_a_partition_may_have_a_quality_of_service_of_its_own(site: SiteStandIn) -> None:
    site.set("scontrol", "partition", PARTITIONS.replace("QoS=N/A", "QoS=acc_debug", 1))
    assert "4 nodes are more than qos acc_debug allows" in told(check_queue(FITS))


def test_nodes_out_of_service_are_told_and_no_reason_to_refuse(site: SiteStandIn) -> None:
    site.set("sacctmgr", "qos", QOS.replace("node=8", ""))
    found = check_queue(replace(FITS, nodes=12))
    assert told(found) == ""
    assert any("only 11 of 12 fitting nodes" in note for note in found.notes)


@pytest.mark.parametrize(
    "error",
    [
        "sacctmgr: error: slurm_persist_conn_open_without_init: failed to open persistent connection to host:dbd:6819: "
        "Connection refused\nsacctmgr: error: Sending PersistInit msg: Connection refused\n Problem with query.",
        "You are not running a supported accounting_storage plugin\nOnly 'accounting_storage/slurmdbd' is supported.",
    ],
)
def test_an_accounting_database_that_does_not_answer_is_said_to_be_unchecked(
    site: SiteStandIn, error: str
) -> None:
    site.set("sacctmgr", "associations", error, code=1)
    found = check_queue(replace(FITS, account="nobody"))
    assert told(found) == ""
    (note,) = found.notes
    assert note.startswith("account and qos: could not be checked: ")
    assert error.splitlines()[0][:40] in note


def test_without_sacctmgr_and_scontrol_everything_is_said_to_be_unchecked(
    site: SiteStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("scontrol", "sacctmgr"):
        site.remove(name)
    monkeypatch.setenv("PATH", f"{site.programs}:/nowhere")
    found = check_queue(FITS)
    assert told(found) == ""
    assert [note.split(":")[0] for note in found.notes] == [
        "settings of SLURM",
        "partition",
        "account and qos",
    ]
    assert all("could not be checked" in note and "is not on this machine" in note for note in found.notes)


def test_a_command_that_hangs_is_named_and_ends_with_what_it_started(
    site: SiteStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_site, "QUERY_SECONDS", 0.3)
    # A child holds the pipes open, as that of a site's wrapper script would.
    site.install("scontrol", "#!/bin/bash\nsleep 100 &\nwait\n")
    before = time.monotonic()
    found = check_queue(FITS)
    assert time.monotonic() - before < 20
    assert told(found) == ""
    (note,) = found.notes
    assert "scontrol show config: no answer in 0.3 s" in note


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ASSOCIATIONS, ["bsc88", "ehpc01"]),
        ("bsc88||normal|normal||||\nehpc01|acc|normal|||||\n", ["bsc88", "ehpc01"]),  # a bar at the end
        ("Account|Partition|QOS|Def QOS|MaxWall|MaxSubmit|MaxTRES\nbsc88||+normal,+debug||||\n", ["bsc88"]),
        ("\n", []),
    ],
)
def test_associations_as_several_versions_print_them(
    site: SiteStandIn, answer: str, expected: list[str]
) -> None:
    site.set("sacctmgr", "associations", answer)
    found = slurm_site.associations("me", "mare")
    assert [entry.account for entry in found] == expected
    assert not any(qos.startswith("+") for entry in found for qos in entry.qos)


def test_a_version_that_does_not_know_a_column_is_asked_for_fewer(site: SiteStandIn) -> None:
    site.install(
        "sacctmgr",
        '#!/bin/bash\n[[ "$*" != *maxtres* ]] || { echo " Unknown field \'maxtres\'" >&2; exit 1; }\n'
        '[[ "$*" == *qos* && "$*" != *associations* ]] && echo "normal|1-00:00:00" || echo "bsc88||normal"\n',
    )
    (association,) = slurm_site.associations("me")
    assert (association.account, association.qos, association.limits.nodes) == ("bsc88", ("normal",), None)
    assert slurm_site.qualities_of_service()["normal"].seconds == 86_400


def test_settings_and_nodes_as_scontrol_and_sinfo_print_them(site: SiteStandIn) -> None:
    assert slurm_site.settings()["MaxArraySize"] == "1001"
    assert "AccountingStorageEnforce = associations" in CONFIG
    kinds = slurm_site.node_kinds("acc")
    assert [(kind.nodes, kind.cpus, kind.gpus, kind.features) for kind in kinds][:2] == [
        (10, 80, 4, ("h100", "fast")),
        (1, 80, 4, ("h100",)),
    ]
    site.set(
        "sinfo", "--noheader", NODES.replace("gpu:hopper:4(S:0-1)", "(null)").replace("h100,fast", "(null)")
    )
    assert next((kind.gpus, kind.features) for kind in slurm_site.node_kinds("acc")) == (0, ())


@pytest.mark.parametrize(
    ("options", "gpus"),
    [
        ({"gres": "gpu:4"}, 4),
        ({"gres": "gpu:h100:2,lustre:1"}, 2),
        ({"gpus-per-node": "a100:8"}, 8),
        ({"gpus-per-node": "4"}, 4),
        ({}, 0),
    ],
)
def test_gpus_in_the_words_of_sbatch(options: dict[str, str], gpus: int) -> None:
    assert QueueRequest.of_options(options, {}).gpus == gpus


def test_the_variables_of_sbatch_win_over_the_script_as_they_do_for_sbatch() -> None:
    options = {"account": "mine", "time": "10", "partition": "acc", "mem": "450G"}
    environment = {"SBATCH_ACCOUNT": "other", "SBATCH_TIMELIMIT": "1:00:00"}
    request = QueueRequest.of_options(options, environment)
    assert (request.account, request.seconds, request.partition) == ("other", 3600, "acc")
    assert request.memory_mib == 450 * 1024
