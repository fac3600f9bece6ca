"""Run the command line: `python -m fieldmorph` is `fieldmorph`."""

import sys

from fieldmorph.apps.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
