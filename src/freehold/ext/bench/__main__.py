"""`python -m freehold.ext.bench`."""

import sys

from freehold.ext.bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
