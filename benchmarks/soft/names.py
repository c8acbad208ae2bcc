"""What stands for the documents in each arm of the comparison, from nothing to all of their text."""

CLOSED, CONSTANT, SHUFFLED, XRAG = "closed book", "constant token", "shuffled token", "xRAG"
SENTENCE, LENT, MIXED = "best sentence", "best sentence + shuffled", "best sentence + xRAG"
PRUNED, TEXT = "pruned text", "text"
