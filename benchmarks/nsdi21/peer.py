"""One trial of one experiment on one system, in a process of its own: the samples as JSON.

python peer.py SYSTEM EXPERIMENT [--part BEGINNING] [--places JSON] [--quick]
"""

from __future__ import annotations

import argparse
import importlib
import json
from importlib.metadata import PackageNotFoundError, version

from systems import SYSTEMS


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("system", choices=SYSTEMS)
    options.add_argument("experiment")
    options.add_argument("--part", default="")
    options.add_argument("--places", type=json.loads, default={})
    options.add_argument("--quick", action="store_true")
    given = options.parse_args()
    system = SYSTEMS[given.system](given.places)
    try:
        found = importlib.import_module(given.experiment).run(system, given.quick, given.part)
    finally:
        if system.cpus:
            system.stop()
    try:
        its = version(system.package)
    except PackageNotFoundError:
        its = system.api.__version__
    print("\n" + json.dumps({"version": its, "samples": found}))


if __name__ == "__main__":
    main()
