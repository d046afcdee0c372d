"""`sbatch`, `srun`, `squeue` and `scontrol` that run job arrays at once, here, and write down what they were told."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

_SBATCH = '''#!{python}
"""Runs each task of the array in turn; a job whose dependency failed is not run, and none while there is a hold."""
import json, os, re, subprocess, sys
home = {home!r}
options, script = sys.argv[1:-1], open(sys.argv[-1]).read()
number = len(os.listdir(home)) + 1000
given = dict(re.findall(r"#SBATCH --([a-z-]+)(?:=(.*))?", script))
dependency = next((o.split("=", 1)[1] for o in options if o.startswith("--dependency=")), given.get("dependency", ""))
needed = [job for jobs in re.findall(r"afterok((?::\\d+)+)", dependency) for job in jobs.split(":")[1:]]
codes, waits = [], os.path.exists(f"{{home}}.hold")
if not waits and all(json.load(open(f"{{home}}/{{job}}"))["ok"] for job in needed):
    first, last = re.match(r"(\\d+)-(\\d+)", given["array"]).groups()
    for task in range(int(first), int(last) + 1):
        environment = dict(os.environ, SLURM_ARRAY_TASK_ID=str(task), SLURM_NODELIST="here", SLURM_JOB_ID=str(number))
        for option in options:
            for pair in re.findall(r"RUN_OFFSET=\\d+", option):
                environment["RUN_OFFSET"] = pair.split("=")[1]
        with open(f"{{home}}.log", "a") as log:
            codes.append(subprocess.run(["bash", "-c", script], env=environment, stdout=log, stderr=log).returncode)
record = {{"name": given["job-name"], "given": given, "dependency": dependency, "codes": codes, "waits": waits,
          "ok": bool(codes) and not any(codes)}}
json.dump(record, open(f"{{home}}/{{number}}", "w"))
print("Submitted batch job", number)
'''
_SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do [[ $1 == -n ]] && shift; shift; done
exec "$@"
"""
_SQUEUE = '''#!{python}
"""Numbers of the jobs asked for that are held; to ask for one alone that was never submitted is an error."""
import json, os, sys
home = {home!r}
(asked,) = [option.split("=", 1)[1].split(",") for option in sys.argv if option.startswith("--jobs=")]
for number in asked:
    if not os.path.exists(f"{{home}}/{{number}}"):
        if len(asked) == 1:
            sys.exit("slurm_load_jobs error: Invalid job id specified")
    elif os.path.exists(f"{{home}}.hold") and json.load(open(f"{{home}}/{{number}}"))["waits"]:
        print(number)
'''
_SCONTROL = """#!/bin/bash
if [[ "$*" == "show config" ]]; then echo "MaxArraySize            = {max_array_size}"; else echo localhost; fi
"""


def install_slurm_stand_in(directory: Path, max_array_size: int = 1001) -> tuple[dict[str, str], Path]:
    """Put the commands into ``directory``.

    Returns:
        The environment that finds them, and the directory in which each job leaves a JSON record named by its number.
        While a file of that name with ``.hold`` at its end exists, jobs wait, and never run.
    """
    commands, jobs = directory / "bin", directory / "jobs"
    commands.mkdir(parents=True)
    jobs.mkdir()
    values = {"python": sys.executable, "home": str(jobs), "max_array_size": max_array_size}
    for name, text in (("sbatch", _SBATCH), ("squeue", _SQUEUE), ("scontrol", _SCONTROL)):
        _install(commands / name, text.format(**values))
    _install(commands / "srun", _SRUN)
    return {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"}, jobs


def _install(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
