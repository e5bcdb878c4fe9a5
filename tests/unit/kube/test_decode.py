import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.api import Node, Pod
from scheduler.kube.decode import Decoder, ErrorEvent, Garbled, LineSplitter, Undecodable

GOOD = {"metadata": {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "5"}}
BAD = {"metadata": {"name": "b", "namespace": "n", "resourceVersion": "6"}, "spec": {"containers": 3}}


def line(type_: str, obj: object) -> bytes:
    return json.dumps({"type": type_, "object": obj}).encode()


@given(st.lists(st.binary().map(lambda b: b.replace(b"\n", b""))), st.lists(st.integers(0, 40)))
def test_lines_do_not_depend_on_where_chunks_end(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(text + b"\n" for text in lines)
    splitter, seen, start = LineSplitter(), [], 0
    for cut in [*cuts, len(data)]:
        seen += splitter.feed(data[start : start + cut])
        start += cut
    seen += splitter.feed(data[start:])
    assert seen == [text for text in lines if text]


def test_a_line_without_its_end_is_kept_back() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"one\ntw") == [b"one"]
    assert splitter.feed(b"") == []
    assert splitter.feed(b"o\n") == [b"two"]


def test_event() -> None:
    event = Decoder(Pod).event(line("ADDED", GOOD))
    assert (event.type, event.object.metadata.uid) == ("ADDED", "u")


def test_an_object_that_does_not_fit_says_which_it_was() -> None:
    with pytest.raises(Undecodable) as caught:
        Decoder(Pod).event(line("MODIFIED", BAD))
    bad = caught.value
    assert (bad.event_type, bad.metadata.name, bad.metadata.resource_version) == ("MODIFIED", "b", "6")
    assert json.loads(bad.raw) == BAD
    assert "containers" in str(bad)


def test_unreadable_metadata_are_left_empty() -> None:
    with pytest.raises(Undecodable) as caught:
        Decoder(Pod).event(line("ADDED", {"metadata": []}))
    assert caught.value.metadata.name == ""


@pytest.mark.parametrize("item_type", [Pod, Node])
def test_error_event_carries_its_status(item_type: type[Pod] | type[Node]) -> None:
    status = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "old"}
    with pytest.raises(ErrorEvent) as caught:
        Decoder(item_type).event(line("ERROR", status))
    assert (caught.value.status.code, caught.value.status.reason) == (410, "Expired")


def test_error_event_whose_status_fits_the_type_is_still_an_error() -> None:
    with pytest.raises(ErrorEvent):
        Decoder(Pod).event(line("ERROR", {"code": 500}))


@pytest.mark.parametrize("text", [b"{", b'{"type":"ADDED"', b"\xff", b"[]", b'{"type":"ADDED"}'])
def test_what_is_no_event_is_garbled(text: bytes) -> None:
    with pytest.raises(Garbled):
        Decoder(Pod).event(text)


def test_page_keeps_the_good_and_names_the_bad() -> None:
    body = {"metadata": {"resourceVersion": "9", "continue": "more"}, "items": [GOOD, BAD, GOOD]}
    page = Decoder(Pod).page(json.dumps(body).encode())
    assert [item.metadata.name for item in page.items] == ["a", "a"]
    assert [bad.metadata.name for bad in page.bad] == ["b"]
    assert (page.resource_version, page.next_page) == ("9", "more")


def test_empty_page() -> None:
    page = Decoder(Pod).page(b'{"metadata":{"resourceVersion":"9"},"items":null}')
    assert (page.items, page.bad, page.next_page) == ([], [], "")


def test_garbled_page() -> None:
    with pytest.raises(Garbled):
        Decoder(Pod).page(b"<html>")


def test_bare_object_has_its_metadata_only() -> None:
    pod = Decoder(Pod).bare(json.dumps(BAD).encode())
    assert pod.metadata.name == "b"
    assert pod.spec.containers is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "object", "metadata", "items", "code", "spec", "name", "x"]), inner
        )
    ),
    max_leaves=8,
)
events = st.fixed_dictionaries(
    {"type": st.sampled_from(["ADDED", "DELETED", "BOOKMARK", "ERROR"]), "object": json_values}
)


@given(events | json_values)
def test_no_event_raises_anything_else(value: object) -> None:
    decoder = Decoder(Pod)
    try:
        decoder.event(json.dumps(value).encode())
    except Undecodable as bad:
        with contextlib.suppress(Garbled):
            decoder.bare(bad.raw)
    except (ErrorEvent, Garbled):
        pass


@given(st.fixed_dictionaries({"metadata": json_values, "items": json_values}) | json_values)
def test_no_page_raises_anything_else(value: object) -> None:
    with contextlib.suppress(Garbled):
        Decoder(Pod).page(json.dumps(value).encode())


def test_a_deletion_of_nobody_knows_what_is_garbled() -> None:
    with pytest.raises(Garbled, match="which object"):
        Decoder(Pod).bare(b'{"metadata": []}')
