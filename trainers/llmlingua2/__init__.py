"""Train the word pruner: targets, items, training, export."""
