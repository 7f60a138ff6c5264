"""The JSON Schemas of the API description, out of the types that requests and replies are made of."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, inspect

from gembackend.plumbing.faults import CODES
from gembackend.plumbing.models import Body

REF = "#/components/schemas/{name}"


def components(requests: Sequence[Any], replies: Sequence[Any]) -> dict[str, Any]:
    """The schemas of these types and of what they are made of, by name; KeyError when two share a name."""
    _, schemas = msgspec.json.schema_components([*requests, *replies], ref_template=REF)
    for shape in _structs(inspect.multi_type_info(requests)):
        _complete_texts(schemas[shape.cls.__name__], shape)
    for shape in _structs(inspect.multi_type_info(replies)):
        _complete_texts(schemas[shape.cls.__name__], shape)
        _complete_reply(schemas[shape.cls.__name__], shape)
    schemas["ErrorCode"] = {
        "description": "The stable name of an error; new ones may be added.",
        "type": "string",
        "enum": list(CODES),
    }
    schemas["Problem"]["properties"]["code"] = {"$ref": REF.format(name="ErrorCode")}
    return schemas


def reference(kind: Any) -> dict[str, Any]:
    """What stands for a type where it is used."""
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=REF)
    return schema


def _complete_texts(schema: dict[str, Any], shape: inspect.StructType) -> None:
    """Say which texts are times, and what they must look like in the dialect of JSON Schema."""
    for field in shape.fields:
        for part in _strings(schema["properties"][field.encode_name]):
            if any(isinstance(kind, inspect.DateTimeType) for kind in _alternatives(field.type)):
                part["format"] = "date-time"
            elif "pattern" in part:
                # In that dialect (ECMA-262) `$` is the very end of a text; Python needs more to say so.
                part["pattern"] = part["pattern"].replace(r"$(?!\n)", "$").replace(r"\Z", "$")
            elif issubclass(shape.cls, Body):
                part["pattern"] = r"^[^\u0000]*$"


def _complete_reply(schema: dict[str, Any], shape: inspect.StructType) -> None:
    """Say that a reply has all of its fields, also those that msgspec has a default for."""
    for value in schema["properties"].values():
        value.pop("default", None)
    if not shape.cls.__struct_config__.omit_defaults:
        schema["required"] = [field.encode_name for field in shape.fields if field.default is not UNSET]


def _strings(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a property's schema that describe a text."""
    return [part for part in schema.get("anyOf", [schema]) if part.get("type") == "string"]


def _alternatives(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def _structs(kinds: Iterable[inspect.Type]) -> Iterator[inspect.StructType]:
    """Every struct among these types and inside them; one that is used twice comes twice."""
    for kind in kinds:
        match kind:
            case inspect.StructType():
                yield kind
                yield from _structs(field.type for field in kind.fields)
            case inspect.UnionType():
                yield from _structs(kind.types)
            case inspect.ListType() | inspect.VarTupleType():
                yield from _structs([kind.item_type])
            case inspect.DictType():
                yield from _structs([kind.value_type])
            case inspect.Metadata():
                yield from _structs([kind.type])
            case _:
                pass
