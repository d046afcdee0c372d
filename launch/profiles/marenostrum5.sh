# shellcheck shell=bash
# MareNostrum 5, accelerated partition: 4 Hopper GPUs with 64 GB and 80 usable CPUs per node, NDR InfiniBand.
# Values as published with the Salamandra training scripts (github.com/langtech-bsc/salamandra), unless noted.
# A value that is set already stays.

# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/generic.sh"

export SBATCH_PARTITION=${SBATCH_PARTITION:-acc}
export SBATCH_QOS=${SBATCH_QOS:-acc_xehpc}

# Binding tasks to cores makes training about four times slower here, say BSC's own scripts
# (github.com/langtech-bsc/rl_salamandra_alignment).
export SLURM_CPU_BIND=${SLURM_CPU_BIND:-none}

export NCCL_IB_HCA=${NCCL_IB_HCA:-mlx5}
export NCCL_IB_TIMEOUT=${NCCL_IB_TIMEOUT:-70}
export NCCL_IB_RETRY_CNT=${NCCL_IB_RETRY_CNT:-40}
export NCCL_NVLS_ENABLE=${NCCL_NVLS_ENABLE:-0}

# The published runs used a Singularity sandbox, a directory: it starts much faster on many nodes than an image file.
export SALAMANDRA_CONTAINER_RUNTIME=${SALAMANDRA_CONTAINER_RUNTIME:-singularity}
