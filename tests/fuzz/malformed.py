"""Requests that are nearly what kube-scheduler sends: recorded ones, damaged in one to three places."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

from tests.unit.extender.replay import MODES, encoded, recorded

Json = Any
VALID = [(each.verb, each.request) for mode in MODES for each in recorded(mode)[1]]

_ODD_NUMBERS = st.sampled_from([0, -1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, 1e308])
_ODD_TEXTS = st.sampled_from(
    ["", "0", "-1", "1e999", "9" * 400, "\x00", "\ud800", "a" * 5000, "../..", "1Gi"]
)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | _ODD_NUMBERS
    | st.integers()
    | st.floats()
    | _ODD_TEXTS
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | _ODD_TEXTS, inner, max_size=3)
    ),
    max_leaves=6,
)
_JUNK = st.sampled_from(
    [b"", b"{", b"null", b"[]", b'"', b"\xff\xfe", b"[" * 50_000, b'{"Pod":' * 20_000, b"{}" * 3]
)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, bytes]:
    """(verb, body)."""
    verb, request = draw(st.sampled_from(VALID))
    if draw(st.integers(0, 9)) == 0:
        return verb, draw(_JUNK | st.binary(max_size=200))
    request = copy.deepcopy(request)
    for _ in range(draw(st.integers(1, 3))):
        _change(draw, request)
    body = _text(request)
    how = draw(st.integers(0, 5))
    if how == 0:
        return verb, body[: draw(st.integers(0, len(body)))]
    if how == 1:
        at = draw(st.integers(0, max(len(body) - 1, 0)))
        return verb, body[:at] + draw(st.binary(min_size=1, max_size=4)) + body[at + 1 :]
    return verb, body


def _change(draw: st.DrawFn, value: Json) -> None:
    """Something somewhere within it."""
    while True:
        keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        inner = value[key]
        if isinstance(inner, dict | list) and inner and draw(st.integers(0, 3)):
            value = inner
            continue
        match draw(st.integers(0, 3)):
            case 0:
                del value[key]
            case 1 if isinstance(value, dict):
                value[str(key).swapcase() + draw(st.text(max_size=2))] = value.pop(key)
            case _:
                value[key] = draw(_VALUES)
        return


def _text(request: Json) -> bytes:
    try:
        return encoded(request)
    except (UnicodeEncodeError, ValueError):
        return json.dumps(request).encode("utf-8", "surrogatepass")
