"""What gangs cost, as it is scraped."""

from __future__ import annotations

from scheduler.observe.metrics import Metrics
from tests.builders import Clock
from tests.unit.core.gangs.words import cluster, decide_all, member

GIB = 1 << 30


def test_what_the_core_has_counted_is_scraped_by_strategy() -> None:
    engine = cluster("3Gi", "1Gi", clock=(clock := Clock()))
    metrics = Metrics()
    metrics.watch_engine(engine)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"wholepod_gang_{name}", labels)

    for name in ("a", "b"):
        engine.upsert_pod(member(name, "2Gi").obj())
    for name in ("c", "d"):
        engine.upsert_pod(member(name, "512Mi", gang="h", strategy="hoarding").obj())
        decide_all(engine)
        clock.advance(4.0)
    assert value("held_memory_byte_seconds_total", strategy="hoarding", outcome="used") == 2 * GIB
    assert value("held_memory_byte_seconds_total", strategy="hoarding", outcome="wasted") == 0
    # Up to the scrape, though nothing has happened: 3 GiB on the node that would take one of them.
    assert value("free_while_wanted_memory_byte_seconds_total", strategy="atomic") == 8 * 3 * GIB
    assert value("infeasible_plans_total", strategy="atomic") == 1
    assert value("plans_total", strategy="hoarding") == 1
    for name, seconds in (("c", 0.5), ("d", 0.0)):
        engine.upsert_pod(member(name, "512Mi", gang="h", strategy="hoarding").on("n1").obj())
        clock.advance(seconds)
    assert value("incomplete_memory_byte_seconds_total", strategy="hoarding") == GIB // 4
    for since, seconds in (("first_member", 8.5), ("min_count", 4.5)):
        labels = {"strategy": "hoarding", "since": since}
        assert value("time_to_bound_seconds_sum", **labels) == seconds
        assert value("time_to_bound_seconds_count", **labels) == 1
        assert value("time_to_bound_seconds_bucket", le="2.56", **labels) == 0
        assert value("time_to_bound_seconds_bucket", le="5.12", **labels) == (seconds < 5.12)
        assert value("time_to_bound_seconds_bucket", le="+Inf", **labels) == 1
