#!/bin/bash
# An image that stands for NVIDIA's: Debian with Python and pip, and a PyTorch that the build has to leave alone.
#
#   make_base.sh DIRECTORY IMAGE [PACKAGES]
#
# PACKAGES is a directory of Python packages to put into it; without one, torch is a stub with the metadata of a build
# of NVIDIA's. DIRECTORY keeps Debian's part, so that a second image is made without it being installed again. Needs root,
# buildah and debootstrap.
set -euo pipefail
directory=$(realpath "$1") image=$2 packages=${3:-}
root=$directory/debian

if [[ ! -e $root.done ]]; then
  rm -rf "$root"
  # An older PyYAML than the project's pins: what the image has is to stay.
  debootstrap --variant=minbase --include=python3,python3-pip,python3-yaml,gcc,libc6-dev,python3-dev bookworm "$root" >&2
  rm -rf "$root"/usr/lib/python3*/EXTERNALLY-MANAGED "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc
  ln -s python3 "$root/usr/bin/python"
  : >"$root.done"
fi

container=$(buildah from scratch)
trap 'buildah rm "$container" >/dev/null' EXIT
site=/usr/local/lib/python3.11/dist-packages
buildah add --quiet "$container" "$root" / >/dev/null
if [[ -z $packages ]]; then
  packages=$directory/stub
  version=2.13.0a0+8145d630e8.nv26.6.54250401
  mkdir -p "$packages/torch" "$packages/torch-$version.dist-info"
  printf '__version__ = "%s"\n' "$version" >"$packages/torch/__init__.py"
  cd "$packages/torch-$version.dist-info"
  printf 'Metadata-Version: 2.1\nName: torch\nVersion: %s\n' "$version" >METADATA
  printf 'pip\n' >INSTALLER
  printf '%s,,\n' torch/__init__.py "torch-$version.dist-info/"{METADATA,INSTALLER,RECORD} >RECORD
fi
buildah add --quiet "$container" "$packages" "$site" >/dev/null
# As NVIDIA's image does: a file of its own, which the build has to put aside.
buildah config --env PIP_CONSTRAINT=/etc/pip/constraint.txt "$container"
buildah commit --quiet "$container" "$image" >/dev/null
