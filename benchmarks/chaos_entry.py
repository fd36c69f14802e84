"""Run demiglace, and kill it ahead of its n-th rename of a file; `chaos.py` starts commands by it.

CHAOS_WRITE is n, 0 for never. The number of renames is added to the file that CHAOS_COUNT names. Everything that
demiglace writes is renamed into place, so that these are the moments at which a file begins to exist.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

COUNT, AT = Path(os.environ["CHAOS_COUNT"]), int(os.environ["CHAOS_WRITE"])
_renames = 0


def _counted(rename: Any) -> Any:
    def call(*args: Any, **options: Any) -> Any:
        global _renames
        _renames += 1
        if _renames == AT:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(*args, **options)

    return call


if __name__ == "__main__":
    os.replace, os.rename = _counted(os.replace), _counted(os.rename)
    from demiglace.cli import main

    try:
        sys.exit(main())
    finally:
        COUNT.write_text(str(_renames))
