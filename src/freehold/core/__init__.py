"""The protocol as pure state machines: no clock, no randomness, no system call, no thread."""
