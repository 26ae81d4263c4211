"""The head: the authority on the nodes of a cluster, and the directory of what is known by name.

    head         joins the parts
    roll         who is a member, who is silent, who is dead for ever
    gaps         two members that cannot reach each other, though the head reaches both
    directory    names and jobs, and the one door for every question to the head
    groups       placement groups: set aside together, or not at all
    placing      which nodes a group's bundles go to
    detached     detached actors: what each is made of, and where it lives now
    tables       what is written down before anybody is told

An embedded session has no head: its node keeps a directory and groups of its own.
"""
