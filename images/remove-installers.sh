#!/bin/sh
# Takes pip, setuptools, wheel and ensurepip out of a base image: nothing is installed in a running container.
# Works for Debian's Python (packages of dpkg) and for the official Python images (installed by pip itself).
set -eu

if command -v dpkg-query >/dev/null; then
  # Patterns that match nothing make dpkg-query complain: that is no error here.
  packages=$(dpkg-query --show --showformat='${db:Status-Abbrev} ${Package}\n' \
    'python3*-venv' 'python3-pip*' 'python3-setuptools*' 'python3-wheel*' 2>/dev/null | sed -n 's/^ii *//p')
  # shellcheck disable=SC2086
  [ -z "$packages" ] || dpkg --purge $packages >/dev/null
fi
if python3 -c 'import pip' 2>/dev/null; then
  PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore python3 -m pip uninstall --quiet --yes setuptools wheel pip
fi
rm -rf "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')/ensurepip"
# What the removal itself compiled or logged does not belong in a layer.
rm -rf /root/.cache /var/log/dpkg.log
