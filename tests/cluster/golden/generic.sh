#!/bin/bash
#SBATCH --job-name=my-run
#SBATCH --nodes=5
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=5
#SBATCH --gres=gpu:4
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --output="/runs/my run/logs/job-%j.log"
#SBATCH --chdir=/home/me
#SBATCH --account=mine

# The supervisor takes the place of this shell, and gets SLURM's signals. One that comes before Python
# can take it must not kill it: it looks at the clock as well.
trap '' USR1
exec /opt/venv/bin/python -u -m megatron_salamandra.cluster.job --lead 300 --profile '/runs/my run/launch/0001/profile.yaml' --spares 1 config.yaml
