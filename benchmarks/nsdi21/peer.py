"""One trial of one experiment on one system, in a process of its own: the samples as JSON.

python peer.py SYSTEM EXPERIMENT [--quick]
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib.metadata import PackageNotFoundError, version

from systems import SYSTEMS


def main() -> None:
    name, experiment, *rest = sys.argv[1:]
    system = SYSTEMS[name]()
    try:
        found = importlib.import_module(experiment).run(system, "--quick" in rest)
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
