"""`python -m acidmpi.report`."""

import sys

from acidmpi.report.cli import main

if __name__ == "__main__":
    sys.exit(main())
