"""What tools return to an agent, pruned for its question and still of the form that it came in."""

from ctxprune.tools.elements import Kind
from ctxprune.tools.prune import ToolOutput, ToolOutputs, prune_tool_output

__all__ = ["Kind", "ToolOutput", "ToolOutputs", "prune_tool_output"]
