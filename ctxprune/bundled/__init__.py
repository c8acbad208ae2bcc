"""Models and the sample corpus that come with the package."""

from pathlib import Path

FOLDER = Path(__file__).parent


def bundled_folder(name: str | Path, file: str) -> Path | None:
    """The folder of the bundled model of that name, if it has `file`, by which its kind is known."""
    folder = FOLDER / name
    return folder if folder.name == str(name) and (folder / file).is_file() else None
