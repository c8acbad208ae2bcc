"""Train the xRAG bridge: data, losses, warm start and training."""
