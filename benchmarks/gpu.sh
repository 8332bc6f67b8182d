#!/usr/bin/env bash
# Measure on a GPU, in at most five minutes: benchmarks/gpu.sh [--device cpu] [parity] [speed] [run] [resume]
# Installs nothing: our programs run from this folder, with the packages of $PYTHON (default: .venv, else python3).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m venv --without-pip --system-site-packages "$scratch/venv"
bin=$scratch/venv/bin
{ pwd; "$python" -c 'import site; print(*site.getsitepackages(), sep="\n")'; } \
  >"$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/here.pth"
for program in data-prep:data_prep detr-job:detr_job detr-workflows:workflows; do
  printf '#!%s\nfrom %s.cli import main\n\nmain()\n' "$bin/python" "${program#*:}" >"$bin/${program%:*}"
  chmod +x "$bin/${program%:*}"
done
"$bin/python" -m benchmarks.gpu "$@"
