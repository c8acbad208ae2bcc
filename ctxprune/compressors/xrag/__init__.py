"""xRAG: a document's retrieval vector as one soft token of the generator."""
