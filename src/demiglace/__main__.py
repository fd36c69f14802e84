"""``python -m demiglace``."""

import sys

from demiglace.interpreters import leave_out_current_directory

leave_out_current_directory()  # before any other import

from demiglace.cli import main  # noqa: E402

sys.exit(main())
