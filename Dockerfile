# syntax=docker/dockerfile:1
# The training image: NVIDIA's PyTorch with this project in it. Works with Docker, Podman, and on clusters after
# `apptainer build`, `singularity build --sandbox` or `enroot import`.
#
#   docker build -t salamandra .
#   mkdir -p runs
#   docker run --gpus all --ipc=host --ulimit memlock=-1 --user "$(id -u):$(id -g)" -e HOME=/tmp -e USER="$USER" \
#     -v "$PWD/runs:/workspace/runs" salamandra salamandra quickstart
#   docker run --gpus all --ipc=host --ulimit memlock=-1 --user "$(id -u):$(id -g)" -e HOME=/tmp -e USER="$USER" \
#     --network host -v "$PWD/runs:/workspace/runs" -v /data:/data salamandra torchrun \
#     --nnodes N --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
#     -m megatron_salamandra.train CONFIG key=value ...
#
# What is mounted belongs to you, so the container runs as you. Make runs/ first: docker would make it as root. Your
# user is not in the image's list of users, hence HOME and USER.
FROM nvcr.io/nvidia/pytorch:25.10-py3

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /opt/salamandra

# The image's PyTorch, Triton, Transformer Engine and their libraries are built for each other: whatever the image has
# is a constraint for pip, so that nothing of it can be replaced. A requirement that does not fit ends the build here.
RUN python -m pip list --format=freeze --exclude pip --exclude setuptools --exclude wheel > /opt/image-versions.txt

COPY setup.py pyproject.toml README.md ./
COPY megatron_salamandra megatron_salamandra
COPY kernels kernels
COPY data_prep data_prep
COPY configs configs

# PIP_CONSTRAINT is set in the image to its own file; ours says the same and more.
# hadolint ignore=DL3013
RUN before=$(python -c 'import torch; print(torch.__version__)') \
  && PIP_CONSTRAINT=/opt/image-versions.txt python -m pip install --no-cache-dir --no-build-isolation '.[hf]' \
  && after=$(python -c 'import torch; print(torch.__version__)') \
  && if [[ "$before" != "$after" ]]; then echo "torch was replaced: $before -> $after" >&2; exit 1; fi

# Not root, and able to write only below /workspace.
RUN useradd --create-home --uid 10001 salamandra && install -d -o salamandra -g salamandra /workspace/runs
COPY --chown=salamandra:salamandra configs /workspace/configs
COPY --chown=salamandra:salamandra launch /workspace/launch
USER 10001
WORKDIR /workspace

# No ENTRYPOINT of ours: enroot runs an image's entrypoint before whatever it is told to start.
CMD ["salamandra", "--help"]
