"""One adapter per system under test.

The peers' interpreters import this package as top-level `systems`, without freehold being
installed there. So nothing in here imports from outside this package, except that each adapter
imports the system it measures.
"""
