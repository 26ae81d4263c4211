"""Extras that are built on freehold's public API only."""
