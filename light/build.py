"""Build the wheel of `ctxprune-rag-light`: the same code and models, with only the packages that pruning needs.

    python light/build.py OUT_FOLDER

The light distribution prunes with the bundled models from Python, the command line and LangChain (where that is
installed). What reads other checkpoints, serves, trains or benchmarks asks for the full distribution.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "ctxprune-rag-light"
#: The versions are those of pyproject.toml.
PACKAGES = ("bm25s", "numpy", "onnxruntime", "rich", "sentencex", "tokenizers", "typer")
EXTRAS = {"langchain": ("langchain-core",), "tokens": ("tiktoken",)}
SOURCES = ("ctxprune", "eval", "integrations", "trainers", "README.md", "LICENSE", "NOTICE")
#: Not taken along: caches, and the bundled models that only torch can run.
LEFT_OUT = shutil.ignore_patterns("__pycache__", "xrag-smollm2-*")


def light_pyproject(source: str) -> str:
    """The pyproject.toml of the full distribution with another name and fewer dependencies."""
    project = tomllib.loads(source)["project"]
    lines = [*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)]
    of_package = {re.split(r"[\[<>=!~ ]", line, maxsplit=1)[0]: line for line in lines}
    wanted = _listed("dependencies", [of_package[name] for name in PACKAGES])
    extras = "".join(_listed(extra, [of_package[name] for name in names]) for extra, names in EXTRAS.items())
    source = _replaced(r'^name = "ctxprune-rag"$', f'name = "{NAME}"', source)
    source = _replaced(r"^dependencies = \[\n.*?^\]\n", wanted, source)
    return _replaced(
        r"^\[project\.optional-dependencies\]\n.*?(?=^\[)", f"[project.optional-dependencies]\n{extras}\n", source
    )


def _listed(name: str, lines: list[str]) -> str:
    return f"{name} = [\n" + "".join(f'    "{line}",\n' for line in lines) + "]\n"


def _replaced(pattern: str, new: str, source: str) -> str:
    source, count = re.subn(pattern, lambda _: new, source, flags=re.MULTILINE | re.DOTALL)
    if count != 1:
        raise SystemExit(f"pyproject.toml has {count} places like {pattern}, not one; mend light/build.py")
    return source


def build(out: Path) -> Path:
    """Write the wheel into `out`; returns its path. Nothing is left in the source tree."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        for name in SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, tree / name, ignore=LEFT_OUT)
            else:
                shutil.copy(ROOT / name, tree / name)
        source = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        (tree / "pyproject.toml").write_text(light_pyproject(source), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tree / "wheel")]
        isolation = ["--no-build-isolation"] if has_setuptools(source) else []
        subprocess.run([*command, *isolation, str(tree)], check=True, stdout=sys.stderr)
        (wheel,) = (tree / "wheel").iterdir()
        return Path(shutil.copy(wheel, out))


def has_setuptools(source: str) -> bool:
    """Whether this environment has what pyproject.toml builds with; if not, pip gets it from the package index."""
    (needed,) = re.findall(r"setuptools>=(\d+)", source)
    try:
        return int(version("setuptools").split(".")[0]) >= int(needed)
    except PackageNotFoundError:
        return False


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    sys.stdout.write(f"{build(Path(sys.argv[1]))}\n")
