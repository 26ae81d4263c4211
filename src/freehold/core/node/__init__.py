"""A node daemon: the authority on the processes and the memory of one machine.

Memory
    store        which object lies where, whose it is, when it may go
    room         who is granted which range of the arena, and who must wait
    copies       copies of other nodes' objects, and which goes first
    pulls        objects brought here, once for all who ask
    serving      what this node sends to others, and who is sent to whom instead

Workers
    workers      started ahead, leased, reused, reaped; the CPUs that go with them
    grants       requests for leases, the leases, and whose turn it is
    scheduler    which node a lease comes from
    gpus         which GPUs a lease uses
    delays       who has waited for long is told on what
    logs         what workers print, on its way to the drivers

Other nodes
    members      the node's head, its view of the others, its judgement without a head
    neighbours   deaths of other nodes' processes, passed on
    strangers    nodes of which it has not heard yet
    suspects     nodes that it cannot reach
    departing    copies that are kept, and how it leaves when it has drained
    relay        questions of its processes to the directory, and the answers
    inquiries    its processes' counts, for its status

Estates of the dead
    estate       what is being collected about one of the dead
    estates      what the dead have owned, and who owns it now
    succession   what an adopter makes of an estate
    adoptions    what this node owns in the stead of the dead
    loans        references inside of what it has adopted
    revivals     what nobody stores is made again, where that can be done
    abandoned    actors of dead drivers that other programs hold

Detached actors
    bodies       the workers that become them
    trusts       references that their constructors may need again

And
    node         joins the parts, and says who of its processes has died
"""
