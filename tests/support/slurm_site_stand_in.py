"""Commands of a SLURM site that answer what a test lets them answer."""

from __future__ import annotations

import stat
from pathlib import Path

CONFIG = """Configuration data as of 2026-11-28T18:51:37
AccountingStorageEnforce = associations,limits,qos
ClusterName             = mare
MaxArraySize            = 1001
SLURM_VERSION           = 23.02.7
"""
PARTITIONS = (
    "PartitionName=acc AllowGroups=ALL AllowAccounts=ALL AllowQos=acc_ehpc,acc_debug Default=YES QoS=N/A "
    "DefaultTime=12:00:00 MaxNodes=100 MaxTime=3-00:00:00 MinNodes=0 Nodes=as[01-12] State=UP TotalCPUs=960 "
    "TotalNodes=12\n"
    "PartitionName=gpp AllowGroups=ALL DenyAccounts=visitors DenyQos=acc_debug Default=NO DefaultTime=NONE "
    "MaxNodes=UNLIMITED MaxTime=UNLIMITED MinNodes=2 Nodes=gs[01-20] State=DRAIN TotalCPUs=2240 TotalNodes=20\n"
)
NODES = (
    "10|80|512000|gpu:hopper:4(S:0-1)|h100,fast|idle\n"
    "1|80|512000|gpu:hopper:4(S:0-1)|h100|mixed\n"
    "1|80|512000|gpu:hopper:4(S:0-1)|h100,fast|drained*\n"
)
ASSOCIATIONS = "bsc88||acc_debug,acc_ehpc|acc_ehpc|||\nehpc01|acc|acc_ehpc||1-00:00:00|5|cpu=800,node=8\n"
QOS = "normal||||\nacc_ehpc|3-00:00:00|20|gres/gpu=32,node=8|\nacc_debug|02:00:00|1|node=2|\n"

_ANSWER = """#!/bin/bash
echo "{name} $*" >> {home}/asked
for word in "$@"; do
  [[ -e {home}/{name}-$word ]] || continue
  [[ ! -e {home}/{name}-$word.code ]] || {{ cat {home}/{name}-$word >&2; exit "$(cat {home}/{name}-$word.code)"; }}
  cat {home}/{name}-$word
  exit 0
done
exit 0
"""
_SBATCH = """#!/bin/bash
echo "sbatch $*" >> {home}/asked
script="${{@: -1}}"
[[ ! -e {home}/sbatch-refuses ]] || {{ cat {home}/sbatch-refuses >&2; exit 1; }}
case " $* " in
  *" --test-only "*) cp "$script" {home}/tested ;;
  *) [[ ! -e {home}/sbatch-full ]] || {{ cat {home}/sbatch-full >&2; exit 1; }}
     echo $((4241 + $(grep -c -- '--parsable ' {home}/asked))) ;;
esac
"""


class SiteStandIn:
    """The commands in ``directory/bin``, and what they answer.

    A command prints the text set for it and a word of its arguments; with a code it prints that as an error.
    """

    def __init__(self, directory: Path) -> None:
        self.programs, self.home = directory / "bin", directory / "site"
        self.programs.mkdir(parents=True)
        self.home.mkdir()
        for name in ("scontrol", "sinfo", "sacctmgr", "squeue", "scancel"):
            self.install(name, _ANSWER.format(name=name, home=self.home))
        self.install("sbatch", _SBATCH.format(home=self.home))
        self.set("scontrol", "config", CONFIG)
        self.set("scontrol", "partition", PARTITIONS)
        self.set("sinfo", "--noheader", NODES)
        self.set("sacctmgr", "associations", ASSOCIATIONS)
        self.set("sacctmgr", "qos", QOS)
        self.set("squeue", "--noheader", "")

    def install(self, name: str, text: str) -> None:
        """Another program of that name."""
        path = self.programs / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def remove(self, name: str) -> None:
        """No such program."""
        (self.programs / name).unlink()

    def set(self, name: str, word: str, text: str, code: int | None = None) -> None:
        """What a command answers where a word is among its arguments."""
        (self.home / f"{name}-{word}").write_text(text)
        if code is not None:
            (self.home / f"{name}-{word}.code").write_text(str(code))

    def refuse(self, text: str, *, in_trial: bool = True) -> None:
        """Let sbatch refuse: already with --test-only, or only when it is meant."""
        (self.home / ("sbatch-refuses" if in_trial else "sbatch-full")).write_text(text)

    def asked(self, name: str = "") -> list[str]:
        """Command lines so far, of one command or of all."""
        path = self.home / "asked"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(name)]
