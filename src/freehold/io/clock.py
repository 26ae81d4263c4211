"""Time, identity and entropy of this process."""

from __future__ import annotations

import os
import time

now = time.monotonic
sleep = time.sleep
yield_cpu = os.sched_yield
pid = os.getpid
random_bytes = os.urandom
