#!/bin/bash
# Build the training image with the revision and version of these sources, by the first of docker, podman and buildah
# that is installed (BUILDER chooses one):
#
#   launch/container/build.sh IMAGE [options of the builder]
#   launch/container/build.sh salamandra:$(git rev-parse --short HEAD)
set -euo pipefail

if (($# == 0)); then
  echo "usage: launch/container/build.sh IMAGE [options of the builder]" >&2
  exit 2
fi
image=$1
shift
sources=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
for builder in ${BUILDER:-docker podman buildah}; do
  ! command -v "$builder" >/dev/null || break
done
revision=$(git -C "$sources" rev-parse HEAD)
[[ -z $(git -C "$sources" status --porcelain) ]] || revision+=+changes
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$sources/megatron_salamandra/__init__.py")
exec "$builder" build --tag "$image" --build-arg REVISION="$revision" --build-arg VERSION="$version" "$@" "$sources"
