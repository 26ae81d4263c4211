"""A process, driver or worker: it owns what it asks for, and runs what others ask of it.

Calls
    client       the caller's half of a call: submit, send, take results, retry
    plain        the plain call, from its submission to its result: what most calls are
    leases       where tasks run, how many are in flight there, when to ask for more
    locality     where a task is sent for the sake of its arguments
    requests     which node has been asked for a lease, and has not answered
    actors       calls of actors, in their order, across restarts
    executor     the worker's half of a call
    embodying    how a worker becomes a detached actor
    rests        tasks that rest before they run again

Values
    rows         what a process knows of references, tasks and places
    references   the table of references, and what a change to one does to others
    owner        who needs which value, and until when
    twins        two rows of one id: its own, and one that it has borrowed
    fetches      reading what lies on another node
    keeping      copies that must not get lost

Failures
    deaths       what the death of a worker or node means for the tasks out there
    lineage      values that are lost, and how they are made again
    savepoints   how far back a loss can reach
    shares       what becomes of references when a process dies
    heirs        what is asked of heirs, and left to them
    claims       tickets that a dead process made for who may not know them
    orphans      references whose owner is dead, found again where their task has run again

And
    process      joins the parts, and speaks with the node
    questions    what is asked on behalf of people
"""
