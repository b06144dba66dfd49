"""Entry point of `python -m acidmpi.bench`."""

import sys

from acidmpi.bench.cli import main
from acidmpi.config.launched import status_of

if __name__ == "__main__":
    sys.exit(status_of(main))
