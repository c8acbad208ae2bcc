"""The OpenAI-compatible proxy that prunes marked context on its way to the generator."""
