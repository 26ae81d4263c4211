"""Tuples to bytes and back: frames, values, authentication.  No system calls."""
