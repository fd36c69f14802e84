"""One contender in a process of its own: pinned to one core and one thread, measured, its record on the last line.

python contend.py RACE.json NAME CORE
"""

import json
import os
import sys
from pathlib import Path


def measured(race_file: Path, name: str) -> dict[str, float]:
    """Train the contender of this name on the material beside the race's file; what it cost."""
    import importlib

    import torch
    from entry import entries
    from material import Material, Race
    from meter import Meter

    torch.set_num_threads(1)
    race = Race(**json.loads(race_file.read_text()))
    entry = next(e for e in entries(bf16=True) if e.name == name)
    meter = Meter()
    importlib.import_module(entry.module).train(Material(race, race_file.parent), entry, meter)
    return meter.record(entry.rows(race), race.epochs)


if __name__ == "__main__":
    if int(sys.argv[3]) >= 0:
        os.sched_setaffinity(0, {int(sys.argv[3])})  # before torch is imported and starts its threads
    print(json.dumps(measured(Path(sys.argv[1]), sys.argv[2])))
