"""An MCP server that prunes text, and one that stands in front of another server and prunes its results."""
