"""`python -m bgproxy` is the command `bgproxy`."""

from __future__ import annotations

import sys

from bgproxy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
