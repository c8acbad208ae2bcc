"""The model card of an export: what it is, how it was made, and what was measured; every figure is its run's own."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any


def model_card(
    name: str, *, base: str, about: str, files: str, recipe: str, explained: str, figures: Mapping[str, Any]
) -> str:
    """Markdown. about: a paragraph. files: a list of what is there and under which licence. recipe: data and command.
    explained: what the figures are."""
    return f"""---
license: apache-2.0
base_model: {base}
---
# {name}

{about}

{files}

## Recipe

{recipe}

## Figures

{explained}

```json
{json.dumps(figures, indent=1)}
```
"""


def command_line(module: str, arguments: argparse.Namespace) -> str:
    """The command that made a model, as a Markdown code block; options that are off or empty are left out."""
    options = []
    for name, value in vars(arguments).items():
        if value:
            shown = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            options.append(f"--{name.replace('_', '-')}" + ("" if value is True else f" {shown}"))
    return f"    python -m {module} " + " ".join(options)
