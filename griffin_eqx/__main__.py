"""`python -m griffin_eqx` is `griffin`."""

import sys

from griffin_eqx.cli import main

if __name__ == "__main__":
    sys.exit(main())
