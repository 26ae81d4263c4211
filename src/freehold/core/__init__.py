"""The protocol as pure state machines: no clock, no randomness, no system call, no thread.

There are three kinds of machines, and each has a room, whose first page is a map of it: ``process``
(drivers and workers), ``node`` and ``head``.  A process knows nothing of the inside of a node, nor
a node of a process; a node may hold a directory of its own, so it reads ``head``.  What several
kinds have in common lies here:

    machine      the one contract between the protocol and whatever hosts it
    messages     every message; in messages_process those of one machine, in messages_cluster those
                 between machines, in opcodes how a row of the table is made
    ids          names of contexts, tasks, references and processes
    address      where a process can be dialled
    places       where in shared memory a value lies, and who may read there
    tickets      what makes a handed-on reference countable
    arena        ranges of one big file
    member       a node as others know it
    gossip       what is passed on of the nodes' reports
    policy       where a lease is asked for
    backoff      how long what has failed rests
    records      what is written to the head's store
"""
