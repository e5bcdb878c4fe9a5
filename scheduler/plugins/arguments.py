"""A plugin's `pluginConfig` arguments, read as strictly as the rest of the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

API_VERSION = "kubescheduler.config.k8s.io/v1"


class Arguments(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Base of argument structs: camelCase in the file; names and fields are those of API_VERSION."""


A = TypeVar("A", bound=Arguments)


def read_arguments(args: Mapping[str, Any] | None, kind: type[A]) -> A:
    """The arguments as a struct. Raises ValueError that names the field.

    They may say what they are, with the same `apiVersion` and `kind` as in kube-scheduler's file.
    """
    fields = dict(args or {})
    for field, expected in (("apiVersion", API_VERSION), ("kind", kind.__name__)):
        got = fields.pop(field, expected)
        require(got == expected, field, f"must be {expected}, got {got!r}")
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise ValueError(_explain(str(error))) from error


def require(condition: bool, field: str, text: str) -> None:
    """Raises ValueError about a field unless the condition holds."""
    if not condition:
        raise ValueError(f"{field}: {text}")


def _explain(message: str) -> str:
    """msgspec's "Object contains unknown field `x` - at `$.a[0]`" as "a[0].x: unknown field"."""
    match = re.fullmatch(r"(.*?)(?: - at `\$\.?(.*?)`)?", message, re.DOTALL)
    text, path = (match.group(1), match.group(2) or "") if match else (message, "")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", text)
    if unknown:
        return f"{path}.{unknown.group(1)}: unknown field".lstrip(".")
    return f"{path}: {text[:1].lower()}{text[1:]}" if path else text
