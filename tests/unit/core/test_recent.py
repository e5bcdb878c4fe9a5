"""What is used last stays."""

from scheduler.core.recent import Recent


def test_what_is_put_again_counts_as_used() -> None:
    recent: Recent[str, int] = Recent(2)
    for key in ("a", "b", "a", "c"):
        recent.put(key, 1)
    assert recent.get("a") == 1
    assert recent.get("b") is None
