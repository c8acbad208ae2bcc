"""Train the pruner: labels, pairs, training, the context head, export."""
