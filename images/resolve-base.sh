#!/bin/sh
# Resolves a base image before a build, so that the image's labels name what it was really built on.
# Usage: DOCKER=docker resolve-base.sh IMAGE [--pull]. Prints one line: the reference to build on (with the digest, when a
# registry has the image), its full name, its digest. The digest is missing for an image that no registry has.
set -eu

docker=${DOCKER:-docker}
image=$1
pull=${2:-}

host='(([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]+)?/)?'
path='[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*'
reference="$host$path(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
# The text is not repeated in the error: an address may contain a password.
if ! printf '%s' "$image" | tr '\n' ' ' | LC_ALL=C grep -Eqx "$reference"; then
  echo "BASE_IMAGE is not the name of an image: write name:tag, name@sha256:DIGEST or name:tag@sha256:DIGEST," \
    "without https:// and without a login (docker login stores one)" >&2
  exit 2
fi

# The full name as registries know it: python → docker.io/library/python.
full_name() {
  case $1 in */*) first=${1%%/*} ;; *) first= ;; esac
  case $first in
    docker.io) case ${1#*/} in */*) echo "$1" ;; *) echo "docker.io/library/${1#*/}" ;; esac ;;
    '') echo "docker.io/library/$1" ;;
    localhost | *.* | *:*) echo "$1" ;;
    *) echo "docker.io/$1" ;;
  esac
}

name=${image%@*}
case ${name##*/} in *:*) repository=${name%:*} ;; *) repository=$name ;; esac

case $image in
  *@*)
    echo "$image $(full_name "$name")" "${image##*@}"
    exit
    ;;
esac

# As Docker itself does: what is here is used, what is not here is pulled.
# shellcheck disable=SC2086
if [ "$pull" = --pull ] || ! $docker image inspect "$image" >/dev/null 2>&1; then
  $docker pull --quiet "$image" >/dev/null
fi
# shellcheck disable=SC2086
digests=$($docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image")
for found in $digests; do
  [ "$(full_name "${found%@*}")" = "$(full_name "$repository")" ] || continue
  digest=${found##*@}
  # Docker with containerd's image store gives a digest to images that were never in a registry as well.
  # shellcheck disable=SC2086
  if $docker pull --quiet "$repository@$digest" >/dev/null 2>&1; then
    case $name in "$repository") name=$name:latest ;; esac
    echo "$name@$digest $(full_name "$name") $digest"
    exit
  fi
done
echo "no registry confirmed $image: the copy on this machine is used, and the label" \
  "org.opencontainers.image.base.digest stays empty" >&2
echo "$image $image"
