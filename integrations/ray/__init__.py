"""Ray: actors that map a file (`crew`), Ray Data sets (`data`), the REST sidecar on Ray Serve (`serve`).

A file is mapped by `ctxprune.integrations.mapping.map_file(..., engine="ray")`. Needs the extra "ray".
"""

from ctxprune.errors import MissingExtraError

try:
    import ray  # noqa: F401
except ImportError as error:
    raise MissingExtraError("ctxprune.integrations.ray", "ray") from error
