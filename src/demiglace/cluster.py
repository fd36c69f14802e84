"""Start Ray, or connect to a Ray cluster, with workers that import nothing from the current directory."""

import importlib
import os
from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any

from demiglace.errors import ConfigError, install_command
from demiglace.interpreters import SAFE_PATH


def connect(address: str | None, variables: Mapping[str, str]) -> Any:
    """Connect to a Ray cluster, or start one, and return the module `ray`.

    address: `auto`, HOST:PORT or ray://HOST:PORT for an existing cluster, `local` for a new one on this machine, none
    for the one that RAY_ADDRESS names, else a new one; variables: environment of the workers, in addition to SAFE_PATH.
    Raises `ConfigError` where Ray is not installed or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError(f"--engine ray needs Ray: {install_command('ray')}, or leave --engine out.") from error
    # Ray appends the current directory to its workers' `sys.path`, unless the job has a working directory
    # (`ray._private.worker.connect`); so it gets an empty one, which is uploaded at once
    with TemporaryDirectory(prefix="demiglace-") as empty:
        try:
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level="error",
                include_dashboard=False if address == "local" else None,
                runtime_env={"working_dir": empty, "env_vars": {**SAFE_PATH, **variables}},
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            where = (
                "no Ray cluster could be started here"
                if address in (None, "local")
                else f"--address {address}: no Ray cluster answers there"
            )
            raise ConfigError(f"{where} ({error}).") from error
    return ray
