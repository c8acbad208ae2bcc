"""Strings, names and objects in the bodies of requests: any that JSON can hold, which pydantic's own strings are not.

Half of a surrogate pair, as cut emoji have it, is text too; OpenAPI shows the types as plain ones.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

MAX_QUESTION = 20_000
MAX_PATTERN_CHARACTERS = 200


def _checked_text(value: object, least: int = 0, most: int | None = None) -> str:
    if not isinstance(value, str):
        raise ValueError("Input should be a valid string")
    if len(value) < least:
        raise ValueError(f"String should have at least {least} character")
    if most is not None and len(value) > most:
        raise ValueError(f"String should have at most {most} characters")
    return value


def _checked_name(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("Input should be a valid string or a number")
    return str(value)


def _checked_object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("Input should be an object")
    return value


AnyText = Annotated[str, PlainValidator(lambda value: _checked_text(value)), WithJsonSchema({"type": "string"})]
SomeText = Annotated[
    str,
    PlainValidator(lambda value: _checked_text(value, least=1)),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
AnyQuestion = Annotated[
    str,
    PlainValidator(lambda value: _checked_text(value, most=MAX_QUESTION)),
    WithJsonSchema({"type": "string", "maxLength": MAX_QUESTION}),
]
Question = Annotated[
    str,
    PlainValidator(lambda value: _checked_text(value, least=1, most=MAX_QUESTION)),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_QUESTION}),
]
AnyName = Annotated[
    str, PlainValidator(_checked_name), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}]})
]
AnyObject = Annotated[
    dict[str, Any], PlainValidator(_checked_object), WithJsonSchema({"type": "object", "additionalProperties": True})
]
Protected = Annotated[
    str,
    PlainValidator(lambda value: _checked_text(value, least=1, most=MAX_PATTERN_CHARACTERS)),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_PATTERN_CHARACTERS}),
]
