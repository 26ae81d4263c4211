"""The demonstration: an inverted index of a source tree, built while processes are killed.

``freehold demo [PATH]``, or ``python -m freehold.ext.demo [PATH]``.  Files are read into shared
objects, mapped by tasks, shuffled by reference to reducers and held by an actor that answers
queries.  Halfway one worker is killed with SIGKILL; with ``--nodes 3``, a worker that owns
references and all of another node.  The result must equal that of a plain single-process
computation, and nothing may be left behind; otherwise the exit status is 1.

=========  =====================================================================================
tree       which files, read in batches
index      pure functions and values: tokenise, partition, merge, search, count
plain      the same result by the shortest single-process program, to compare with
program    the distributed program
many       the same on a cluster in namespaces: owners on several nodes, one of which is killed
node       what the program asks of the node: its status, a kill, that nothing is left
report     the verdict, and the table a person reads
command    the command line, with a watchdog
=========  =====================================================================================
"""
