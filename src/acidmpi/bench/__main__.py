"""Entry point of `python -m acidmpi.bench`."""

import sys

from acidmpi.bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
