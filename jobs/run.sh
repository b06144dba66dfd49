#!/usr/bin/env bash
# One run of `acidmpi.bench iteration`, its options given as KEY=VALUE:
#
#   jobs/run.sh ranks=2 model=resnet18 methods=ssgd,acpsgd batch_size=8
#
# HOSTS=jobs/cluster.toml runs it there. Results: a folder of its own below runs/benchmarks.
# `jobs/benchmarks/batch.py` runs many.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH="$PWD/${VENV:-.venv}/bin:$PATH"
exec python jobs/benchmarks/batch.py ${HOSTS:+--hosts "$HOSTS"} "$@"
