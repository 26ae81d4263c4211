"""Every system call: sockets, shared memory, processes.  Knows bytes, never messages."""
