"""The benchmark: freehold, its peers and the floor side by side in one run.

`python -m freehold.ext.bench` (or `freehold bench`) runs every system several times in turn, each
in a process and an interpreter of its own, and prints one table of medians, spreads and ratios,
written also as JSON and as a plot. The peers live in a virtual environment that the first run
makes; a peer that cannot be installed, crashes or hangs is left out, with the reason.

rows      what is measured, and the goals
venvs     the peers' virtual environment
runner    one system, in one process: start it, read its results, clean up after it
results   medians, spreads, ratios, goals; JSON
table     the printed table
plot      the picture
cli       the command; nothing is imported here, since workers that run probes import this package
peer      the file that the peers' interpreters run; systems/ has an adapter for each of them
"""
