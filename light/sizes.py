"""What an installation takes on disk: each package that was asked for, with what it brings.

    python light/sizes.py [FOLDER]         # FOLDER: site-packages of another environment (default: this one's)

Prints a table in MB (1,000,000 bytes), the files that pip recorded, compiled ones included. What several packages bring
counts for the first of them; the bundled models have a row of their own.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

NAME = "ctxprune-rag-light"
#: The folder in the package that they are in.
MODELS = "bundled"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def size(distribution: Distribution, *, models: bool = False) -> int:
    """Bytes of its files: of the bundled models, or of everything else."""
    files = (file for file in distribution.files or () if (MODELS in file.parts) == models)
    return sum(path.stat().st_size for path in map(Path, map(distribution.locate_file, files)) if path.is_file())


def needs(distribution: Distribution) -> list[str]:
    """Names, those of extras left out; names of other platforms do no harm, as they are not installed."""
    lines = (line for line in distribution.requires or () if "extra ==" not in line)
    return [canonical(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in lines]


def shares(installed: dict[str, Distribution], root: str) -> Iterator[tuple[str, list[str]]]:
    """(package that `root` asks for, it and what it brings) for each of them; no package is in two."""
    asked = [name for name in needs(installed[root]) if name in installed]
    taken = {root, *asked}
    for name in asked:
        share = [name]
        for each in share:
            brought = [other for other in needs(installed[each]) if other in installed and other not in taken]
            taken.update(brought)
            share.extend(brought)
        yield name, share


def rows(installed: dict[str, Distribution], root: str) -> Iterable[tuple[str, int, str]]:
    yield f"{root}, its models", size(installed[root], models=True), ""
    yield f"{root}, its code", size(installed[root]), ""
    for name, (_, *brought) in shares(installed, root):
        parts = {each: size(installed[each]) for each in (name, *brought)}
        yield name, sum(parts.values()), ", ".join(sorted(brought, key=lambda each: -parts[each]))


def table(installed: dict[str, Distribution], root: str) -> str:
    lines = sorted(rows(installed, root), key=lambda row: -row[1])
    lines.append(("together", sum(row[1] for row in lines), ""))
    return "\n".join(["| package | MB | with |", "| --- | ---: | --- |", *map(_line, lines)])


def _line(row: tuple[str, int, str]) -> str:
    name, size_bytes, brought = row
    return f"| {name} | {size_bytes / 1_000_000:.1f} | {brought} |".replace("|  |", "| |")


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("purelib")
    here = {canonical(each.metadata["Name"]): each for each in distributions(path=[folder])}
    if NAME not in here:
        raise SystemExit(f"{NAME} is not installed in {folder}; give the site-packages of an environment that has it")
    sys.stdout.write(f"{table(here, NAME)}\n")
