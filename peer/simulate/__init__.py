"""`shoal simulate`: the code that groups, seals and combines, run for any number of peers on a simulated network.

    scenario       what is simulated, and the figures of a round
    work           what peers learn: a drift that they share and noise of their own
    links          which messages arrive in time, who leaves
    lookups        what a look-up in a Kademlia DHT of so many nodes costs
    random_groups  a swarm of many groups: `protocols/grouping.py`, `peer/train/mixing.py`
    one_group      a swarm that fits in one group: `peer/block/replica.py`
    theory         what the spread between replicas should be, and how much work is in them
    traffic        what a round brings, in bytes
    run            round by round, and how it is printed

Nothing here runs in the daemon. Vectors are short, signatures and transfers are left out, bytes are counted.
"""
