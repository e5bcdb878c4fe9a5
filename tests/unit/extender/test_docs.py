"""docs/extender.md against the code."""

from scheduler import cli
from scheduler.extender.metrics import Metrics
from tests.unit.test_docs import DOCS, section, table, unquoted

PAGE = DOCS / "extender.md"
OF_ALL = ("rest_client", "process_", "python_", "wholepod_unreadable")


def test_metrics() -> None:
    metrics = Metrics()
    metrics.watch(under_way=lambda: 0, plans=lambda: {"made": 0})
    found = {}
    for family in metrics.registry.collect():
        if not family.name.startswith(OF_ALL):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = family.type
    rows = table(section(PAGE, "## Metrics"))
    assert {unquoted(row[0]): row[1] for row in rows} == found


def test_flags() -> None:
    written = {
        flag.strip() for row in table(section(PAGE, "## Settings")) for flag in unquoted(row[0]).split(",")
    }
    of_all = {"--kubeconfig", "--log-level", "--log-format", "--help"}
    flags = {option for parameter in cli.extender.params for option in parameter.opts}
    assert written == flags - of_all
