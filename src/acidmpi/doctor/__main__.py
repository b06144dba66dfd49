"""`python -m acidmpi.doctor`."""

import sys

from acidmpi.doctor.cli import main

if __name__ == "__main__":
    sys.exit(main())
