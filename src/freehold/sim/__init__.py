"""The other host of the core machines: virtual time, seeded faults, checkers.

``python -m freehold.sim --seed N`` replays one run.  A run is a function of its seed alone: what
is drawn (``setup``), what the user programs do (``programs``), how long frames take (``world``)
and what goes wrong (``faults``).  The machines are those of ``freehold.core``, unchanged, and
every frame goes through the bytes of ``wire.codec``.
"""
