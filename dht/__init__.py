"""Who is there: identities, signed records in the DHT, membership, leases.

identity.py     who this peer is: a key, its peer id, signatures
records.py      what peers say of themselves and of domains in the DHT; signed, bounded
validator.py    which records a node stores and returns
addresses.py    multiaddrs that people type and peers publish; why a dial failed
p2pd.py         libp2p's process: started, and never left behind
network.py      the libp2p host and the DHT node: dial, store, fetch, serve, call
storage.py      what a node keeps for others: bounded, those first whom it knows
acquaintances.py  whom this peer knows, and whom it dials next
credible.py     which of a member's numbers are believed
membership.py   who holds which block at which tick
address_book.py the addresses of peers seen, on disk
leases.py       who should take what: sub-models, shards, copies of states

Nothing of a round's transfer passes here: that is `protocols/`.
"""
