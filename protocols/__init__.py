"""What peers say to each other: typed messages, tensor codecs, offers, gossip, state and shards."""
