"""Entry point of `python -m acidmpi.train`."""

import sys

from acidmpi.train.cli import main

if __name__ == "__main__":
    sys.exit(main())
