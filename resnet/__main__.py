"""`python -m resnet`."""

import sys

from resnet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
