"""What pruning tool results does to an agent's conversation of forty turns, on every wire."""
