"""What a run and a peer are told: frozen, checked once at the edge. No torch, no hivemind here."""
