"""Keep once what several bundled models have in common.

    python -m ctxprune.trainers.shared.sharing --name NAME [--join] FOLDER ...

takes out of every folder's model.onnx the embedding tables that are the same in all of them, byte for byte, and the
tokenizer, and puts them into ctxprune/bundled/shared as NAME.safetensors and NAME.tokenizer.json. With one folder its
embedding tables move, so that neither file grows too large. With --join the shared files stay as they are, and each
folder, such as a model trained anew, is made to use them. `ctxprune.runtime.weights` puts them together again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from ctxprune.errors import CheckpointError
from ctxprune.runtime.weights import FOLDER, SHARED, shared_tables, write_digests

#: Smaller tables are not worth a name.
_LEAST_BYTES = 1 << 16
#: In the names of the tables that may move; what follows it names them in the shared file.
_TABLES = "embeddings."

Arrays = dict[str, np.ndarray[Any, Any]]


def load_whole(folder: Path) -> Any:
    """The folder's model.onnx as a protobuf, with the shared tables back in it.

    Raises CheckpointError when it cannot be read.
    """
    import onnx
    from onnx import numpy_helper

    try:
        model = onnx.load(folder / "model.onnx", load_external_data=False)
    except Exception as error:  # the library's errors share no class of their own
        raise CheckpointError(f"{folder}: model.onnx cannot be read ({error}); give the folder of an export") from None
    shared = shared_tables(folder)
    for table in model.graph.initializer:
        if table.name in shared:
            table.CopyFrom(numpy_helper.from_array(shared[table.name], table.name))
    return model


def share(folders: Sequence[Path], name: str, *, into: Path = FOLDER) -> list[str]:
    """Move what the folders have in common into `into`; returns the names of the tables that moved.

    Raises CheckpointError when they have no table in common.
    """
    models = [load_whole(folder) for folder in folders]
    tables = [_embeddings(model) for model in models]
    common = sorted(key for key in tables[0] if all(_same(tables[0][key], other.get(key)) for other in tables))
    if not common:
        listed = ", ".join(map(str, folders))
        raise CheckpointError(f"{listed} have no embedding table in common, so there is nothing to share")
    into.mkdir(parents=True, exist_ok=True)
    (into / f"{name}.safetensors").write_bytes(save({key: tables[0][key] for key in common}))
    files = _share_tokenizer(folders, into / f"{name}.tokenizer.json")
    for folder, model in zip(folders, models, strict=True):
        _without(folder, model, common, files, f"{name}.safetensors")
    write_digests(into)
    return common


def join(folder: Path, name: str, *, into: Path = FOLDER) -> list[str]:
    """Make a folder use the tables and the tokenizer that others share; returns the names of the tables.

    Raises CheckpointError for a table that is not the shared one, byte for byte: the folder is then left as it is.
    """
    file, tokenizer = into / f"{name}.safetensors", into / f"{name}.tokenizer.json"
    if not file.is_file():
        raise CheckpointError(
            f"{file} is not there, so there is nothing to join; share the tables of some folders first"
        )
    shared, model = load_file(file), load_whole(folder)
    own = _embeddings(model)
    for key, table in shared.items():
        if not _same(table, own.get(key)):
            raise CheckpointError(f"{folder}: {key} is not that of {file.name}; share it with others of its own base")
    mine = folder / "tokenizer.json"
    same_tokenizer = mine.is_file() and tokenizer.is_file() and mine.read_bytes() == tokenizer.read_bytes()
    _without(folder, model, sorted(shared), {mine.name: tokenizer.name} if same_tokenizer else {}, file.name)
    if same_tokenizer:
        mine.unlink()
    return sorted(shared)


def _without(folder: Path, model: Any, tables: Sequence[str], files: Mapping[str, str], file: str) -> None:
    """Write the folder's model without the tables, and where they and its other shared files are."""
    moved = _take_out(model, tables, file)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    listing = {"files": files, "tables": moved}
    (folder / SHARED).write_text(json.dumps(listing, indent=2) + "\n", encoding="utf-8")
    write_digests(folder)


def _embeddings(model: Any) -> Arrays:
    from onnx import numpy_helper

    return {
        table.name.split(_TABLES, 1)[1]: numpy_helper.to_array(table).copy()
        for table in model.graph.initializer
        if _TABLES in table.name and len(table.raw_data) >= _LEAST_BYTES
    }


def _same(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any] | None) -> bool:
    return (
        other is not None and (one.dtype, one.shape) == (other.dtype, other.shape) and one.tobytes() == other.tobytes()
    )


def _share_tokenizer(folders: Sequence[Path], target: Path) -> Mapping[str, str]:
    """Only where all have the same; they are kept where they are otherwise, or where there is one folder."""
    own = [folder / "tokenizer.json" for folder in folders]
    contents = {path.read_bytes() for path in own if path.is_file()}
    if len(folders) < 2 or len(contents) > 1:
        return {}
    if contents:
        target.write_bytes(contents.pop())
    for path in own:
        path.unlink(missing_ok=True)
    return {"tokenizer.json": target.name}


def _take_out(model: Any, common: Sequence[str], file: str) -> dict[str, tuple[str, str]]:
    """Leave of the tables their names, shapes and checksums; returns where each is."""
    import hashlib

    from onnx import TensorProto

    moved = {}
    for table in model.graph.initializer:
        key = table.name.split(_TABLES, 1)[-1]
        if _TABLES not in table.name or key not in common:
            continue
        moved[table.name] = (file, key)
        details = {"location": file, "checksum": hashlib.sha1(table.raw_data, usedforsecurity=False).hexdigest()}
        table.ClearField("raw_data")
        table.data_location = TensorProto.EXTERNAL
        del table.external_data[:]
        for name, value in details.items():
            table.external_data.add(key=name, value=value)
    return moved


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Keep once what several bundled models have in common")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="folder with model.onnx")
    parser.add_argument("--name", required=True, help="of the shared files, without their endings")
    parser.add_argument("--join", action="store_true", help="use the files that others share already")
    arguments = parser.parse_args(argv)
    if arguments.join:
        tables = [table for folder in arguments.folders for table in join(folder, arguments.name)]
    else:
        tables = share(arguments.folders, arguments.name)
    for table in tables:
        print(f"{arguments.name}.safetensors: {table}")


if __name__ == "__main__":
    main()
