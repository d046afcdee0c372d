# shellcheck shell=bash
# Any SLURM cluster with NVIDIA GPUs. A value that is set already stays.

# Megatron-Core needs one hardware queue for its order of kernels and collectives to overlap communication with the
# backward pass of tensor and sequence parallelism.
export CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-1}
# Memory of tensors used in a collective returns to the allocator earlier.
export TORCH_NCCL_AVOID_RECORD_STREAMS=${TORCH_NCCL_AVOID_RECORD_STREAMS:-1}
# As torchrun sets it: every rank has its own GPU, and the CPU threads of PyTorch are hardly used.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# Compute nodes seldom reach the internet; nothing is to be looked for there.
export TRANSFORMERS_OFFLINE=${TRANSFORMERS_OFFLINE:-1}
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
