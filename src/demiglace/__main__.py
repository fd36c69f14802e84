"""``python -m demiglace``."""

import sys

from demiglace.cli import main

sys.exit(main())
