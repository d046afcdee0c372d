# syntax=docker/dockerfile:1
# The training image: NVIDIA's PyTorch with this project in it. Works with Docker, Podman and Buildah, in Docker's and
# in OCI's format, and on clusters as docs/guides/slurm.md says.
#
#   launch/container/build.sh salamandra
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
#
# The base image is there for x86_64 and for aarch64 (GH200 nodes, such as Alps). Build on a machine of the same kind;
# every package that is added has a wheel for both.
FROM nvcr.io/nvidia/pytorch:26.06-py3

WORKDIR /opt/salamandra
COPY setup.py pyproject.toml README.md ./
COPY megatron_salamandra megatron_salamandra
COPY kernels kernels
COPY data_prep data_prep
COPY configs configs
COPY constraints constraints
COPY launch launch

# build.sh passes both. What install.py says holds for every format, because no shell has a part in it.
ARG REVISION=unknown
ARG VERSION=unknown
RUN python3 launch/container/install.py --revision "$REVISION" --version "$VERSION"
LABEL org.opencontainers.image.title="megatron-salamandra" \
  org.opencontainers.image.revision="$REVISION" \
  org.opencontainers.image.version="$VERSION"

# Not root, and able to write only below /workspace.
RUN useradd --create-home --uid 10001 salamandra && install -d -o salamandra -g salamandra /workspace/runs
COPY --chown=salamandra:salamandra configs /workspace/configs
COPY --chown=salamandra:salamandra launch /workspace/launch
USER 10001
WORKDIR /workspace

# No ENTRYPOINT of ours: enroot runs an image's entrypoint before whatever it is told to start.
CMD ["salamandra", "--help"]
