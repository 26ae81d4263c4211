"""One trial of one experiment on one system, in a process of its own: the samples as JSON.

python peer.py freehold|ray EXPERIMENT [--quick]
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib.metadata import PackageNotFoundError, version


def main() -> None:
    name, experiment, *rest = sys.argv[1:]
    api = importlib.import_module(name)
    try:
        found = importlib.import_module(experiment).run(api, "--quick" in rest)
    finally:
        api.shutdown()
    try:
        its = version(name)
    except PackageNotFoundError:
        its = api.__version__
    print("\n" + json.dumps({"version": its, "samples": found}))


if __name__ == "__main__":
    main()
