"""`sbatch`, `srun` and `scontrol` that run job arrays at once, on this machine, and write down what they were told."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

_SBATCH = '''#!{python}
"""Runs each task of the array in turn; a job whose dependency failed is not run."""
import json, os, re, subprocess, sys
home = {home!r}
options, script = sys.argv[1:-1], open(sys.argv[-1]).read()
number = len(os.listdir(home)) + 1000
given = dict(re.findall(r"#SBATCH --([a-z-]+)(?:=(.*))?", script))
dependency = next((o.split("=", 1)[1] for o in options if o.startswith("--dependency=")), given.get("dependency", ""))
needed = re.findall(r"afterok:(\\d+)", dependency)
codes = []
if all(json.load(open(f"{{home}}/{{job}}"))["ok"] for job in needed):
    first, last = re.match(r"(\\d+)-(\\d+)", given["array"]).groups()
    for task in range(int(first), int(last) + 1):
        environment = dict(os.environ, SLURM_ARRAY_TASK_ID=str(task), SLURM_NODELIST="here", SLURM_JOB_ID=str(number))
        for option in options:
            for pair in re.findall(r"RUN_OFFSET=\\d+", option):
                environment["RUN_OFFSET"] = pair.split("=")[1]
        with open(f"{{home}}.log", "a") as log:
            codes.append(subprocess.run(["bash", "-c", script], env=environment, stdout=log, stderr=log).returncode)
record = {{"name": given["job-name"], "given": given, "dependency": dependency, "codes": codes,
          "ok": bool(codes) and not any(codes)}}
json.dump(record, open(f"{{home}}/{{number}}", "w"))
print("Submitted batch job", number)
'''
_SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do [[ $1 == -n ]] && shift; shift; done
exec "$@"
"""
_SCONTROL = """#!/bin/bash
echo localhost
"""


def install_slurm_stand_in(directory: Path) -> tuple[dict[str, str], Path]:
    """Put the commands into ``directory``.

    Returns:
        The environment that finds them, and the directory in which each job leaves a JSON record named by its number.
    """
    commands, jobs = directory / "bin", directory / "jobs"
    commands.mkdir(parents=True)
    jobs.mkdir()
    sbatch = _SBATCH.format(python=sys.executable, home=str(jobs))
    for name, text in (("sbatch", sbatch), ("srun", _SRUN), ("scontrol", _SCONTROL)):
        path = commands / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"}, jobs
