"""The documentation against the code: what can be compared is compared, so that it can't drift."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
import pytest

import scheduler
from scheduler import cli, config
from scheduler.controller.metrics import Metrics as ControllerMetrics
from scheduler.core.engine import Decision, Engine, Verdict
from scheduler.core.plugin import Plugin
from scheduler.extender.metrics import Metrics as ExtenderMetrics
from scheduler.observe.metrics import Metrics
from scheduler.plugins import BUILT_IN, DEFAULT_SCORES, FILTERS
from scheduler.plugins.arguments import Arguments
from scheduler.plugins.default_preemption import DefaultPreemptionArgs
from scheduler.plugins.default_spread import PodTopologySpreadArgs
from scheduler.plugins.inter_pod_affinity import InterPodAffinityArgs
from scheduler.plugins.memory_fit import MemoryFit, Objective
from scheduler.plugins.node_affinity import NodeAffinityArgs
from scheduler.plugins.node_resources import NodeResourcesBalancedAllocationArgs, NodeResourcesFitArgs
from scheduler.plugins.profiles import build_profile
from scheduler.plugins.volume_binding import VolumeBindingArgs
from tests.builders import Clock, make_engine, make_node, make_pod

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "deploy").rglob("*.md")])
DIFFERENCES = ROOT / "tests" / "parity" / "test_differences.py"
DURATIONS = config.DURATION_FIELDS


def section(page: Path, heading: str) -> str:
    """The text under a heading, down to the next one of its level."""
    level, text = heading.split(" ", 1)[0], page.read_text()
    start = text.index(f"\n{heading}\n")
    end = text.find(f"\n{level} ", start + 1)
    return text[start : end if end > 0 else None]


def table(text: str) -> list[list[str]]:
    """The rows of the first table, without its head."""
    lines = text.split("\n\n|", 1)[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines[2:]]


def fenced(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def unquoted(cell: str) -> str:
    return cell.replace("`", "")


def example_plugin() -> Any:
    """The class that plugins.md shows."""
    [code] = fenced(DOCS / "plugins.md", "python")
    scope: dict[str, Any] = {}
    exec(code, scope)
    return scope["MemoryHeadroom"]


# ---- links


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(
        r"^#+ (.*)$",
        re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE),
        re.MULTILINE,
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name} links to {target}"


# ---- configuration.md


def fields(kind: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(field, type, default) of each field of a configuration struct, as the page writes them."""
    for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]
        name, of = prefix + field.encode_name, field.type
        if isinstance(of, msgspec.inspect.StructType):
            yield from fields(of.cls, f"{name}.")
            continue
        yield name, type_text(field.encode_name, of), default_text(field)
        if isinstance(of, msgspec.inspect.VarTupleType) and isinstance(
            of.item_type, msgspec.inspect.StructType
        ):
            yield from fields(of.item_type.cls, f"{name}[].")


def type_text(name: str, of: msgspec.inspect.Type) -> str:
    if name in DURATIONS:
        return "duration"
    match of:
        case msgspec.inspect.UnionType():
            [kind] = [each for each in of.types if not isinstance(each, msgspec.inspect.NoneType)]
            return type_text(name, kind)
        case msgspec.inspect.LiteralType():
            # The inspected values are sorted; people read them in the order of the code.
            ordered = {"auto": 0, "json": 1, "console": 2, "debug": 0, "info": 1, "warning": 2, "error": 3}
            values = sorted(map(str, of.values), key=lambda value: (ordered.get(value, 0), value))
            return f"{', '.join(values[:-1])} or {values[-1]}"
        case msgspec.inspect.VarTupleType():
            return "list"
    names = {"StrType": "string", "BoolType": "boolean", "IntType": "integer", "FloatType": "number"}
    return {**names, "DictType": "mapping"}[type(of).__name__]


def default_text(field: msgspec.inspect.Field) -> str:
    default = field.default
    if default is msgspec.NODEFAULT:
        if field.default_factory is msgspec.NODEFAULT:
            return "required"
        default = field.default_factory()
    if field.encode_name in DURATIONS:
        return f"{default:g}s"
    match default:
        case str():
            return default or '""'
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[default]
        case int() | float():
            return f"{default:g}"
        case tuple():
            if any(isinstance(item, str) for item in default):
                return f"[{', '.join(default)}]"
            return "[{}]" if default else "[]"
    return "{}" if default == {} else repr(default)


def test_every_field_is_described() -> None:
    rows = table(section(DOCS / "configuration.md", "## Fields"))
    described = [tuple(map(unquoted, row[:3])) for row in rows]
    assert described == list(fields(config.Configuration))
    assert all(row[3] for row in rows)


def test_every_flag_is_described() -> None:
    rows = table(section(DOCS / "configuration.md", "## Flags of `wholepod run`"))
    command = cli.main.commands["run"]
    flags = [option.opts[0] for option in command.params if isinstance(option, click.Option)]
    assert [unquoted(row[0]) for row in rows] == flags
    known = {name for name, _, _ in fields(config.Configuration)}
    assert {unquoted(row[1]) for row in rows} - {""} <= known


def test_presets_are_as_described() -> None:
    text = section(DOCS / "configuration.md", "## Presets")
    order = re.search(r"in this order: (.*?)\.", text, re.DOTALL)
    assert order is not None
    assert tuple(re.findall(r"`(\w+)`", order[1])) == FILTERS
    described = {
        unquoted(preset): {name: int(weight) for name, weight in re.findall(r"`(\w+)` \((\d+)\)", scores)}
        for preset, scores in table(text)
    }
    assert described == {preset: dict(scores) for preset, scores in DEFAULT_SCORES.items()}


ARGUMENTS: dict[str, type[Arguments]] = {
    "NodeAffinity": NodeAffinityArgs,
    "NodeResourcesFit": NodeResourcesFitArgs,
    "NodeResourcesBalancedAllocation": NodeResourcesBalancedAllocationArgs,
    "VolumeBinding": VolumeBindingArgs,
    "InterPodAffinity": InterPodAffinityArgs,
    "PodTopologySpread": PodTopologySpreadArgs,
    "DefaultPreemption": DefaultPreemptionArgs,
}


def arguments(kind: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """As `fields`, for structs that may be left out too; affinity is described where pods are."""
    for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]
        name, of = prefix + field.encode_name, field.type
        inner, suffix = of, "."
        structs = [each for each in getattr(of, "types", ()) if isinstance(each, msgspec.inspect.StructType)]
        if structs:
            [inner] = structs
            yield name, "mapping", "null"
        elif isinstance(of, msgspec.inspect.VarTupleType):
            inner, suffix = of.item_type, "[]."
            yield name, "list", default_text(field)
        elif not isinstance(of, msgspec.inspect.StructType):
            yield name, type_text(field.encode_name, of), default_text(field)
        if isinstance(inner, msgspec.inspect.StructType) and name != "addedAffinity":
            yield from arguments(inner.cls, name + suffix)


def test_every_argument_is_described() -> None:
    rows = table(section(DOCS / "configuration.md", "## Arguments of plugins"))
    described = [tuple(map(unquoted, row[:4])) for row in rows]
    expected = [(plugin, *row) for plugin, kind in ARGUMENTS.items() for row in arguments(kind)]
    assert described == [*expected, ("MemoryFit", "objective", "string", MemoryFit().objective)]
    assert all(row[4] for row in rows)
    with_arguments = {name for name, plugin in BUILT_IN.items() if plugin.__init__ is not Plugin.__init__}
    assert {row[0] for row in described} == with_arguments


def test_objectives_are_as_described() -> None:
    rows = table(section(DOCS / "configuration.md", "## MemoryFit"))
    described = [unquoted(row[0]).removesuffix(" (default)") for row in rows]
    assert sorted(described) == sorted(get_args(Objective))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_example_configurations_are_valid(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILT_IN, "MemoryHeadroom", example_plugin())
    examples = [
        block for block in fenced(page, "yaml") if block.startswith(f"apiVersion: {config.API_VERSION}")
    ]
    if page == DOCS / "configuration.md":
        assert len(examples) == 4
    for example in examples:
        for profile in config.parse(example, source=page.name).profiles:
            build_profile(profile)


# ---- metrics.md


@pytest.fixture
def metrics() -> Metrics:
    """With every metric in use at least once, since only then does it show its labels."""
    clock = Clock()
    engine = make_engine(clock)
    metrics = Metrics()
    metrics.watch_engine(engine)
    engine.upsert_node(make_node().obj())
    engine.upsert_pod(make_pod("big").req(memory="100Gi").obj())
    engine.upsert_pod(make_pod("small").req(memory="1Gi").obj())
    for decision in decisions(engine):
        metrics.decided(decision, 0.001)
        if decision.verdict is Verdict.PLACED:
            metrics.bound(decision, 0.01, 0.02)
    metrics.on_request("GET", "200", 0.01)
    metrics.leader.labels("wholepod").set(1)
    metrics.victims.labels("a")
    metrics.shed.labels("a", "b")
    metrics.gang_commits.labels("complete")
    metrics.races.labels("undone")
    for counter in (metrics.binds, metrics.retries, metrics.unreadable, metrics.volume_errors):
        counter.labels("any").inc()
    return metrics


def decisions(engine: Engine) -> Iterator[Decision]:
    while (decision := engine.decide()) is not None:
        yield decision


def test_every_metric_is_described(metrics: Metrics) -> None:
    exported = {}
    for family in metrics.registry.collect():
        if family.name.startswith(("process_", "python_")):
            continue
        assert family.samples, f"{family.name} is not in use in this test"
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        exported[name] = (family.type, sorted(labels))
    rows = table(section(DOCS / "metrics.md", "## Metrics"))
    assert {unquoted(row[0]): (row[1], re.findall(r"`(\w+)`", row[2])) for row in rows} == exported
    assert all(row[3] for row in rows)


def test_queries_name_metrics_that_exist(metrics: Metrics) -> None:
    exported = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    extender = ExtenderMetrics()
    extender.watch(under_way=lambda: 0, plans=dict)
    for others in (ControllerMetrics().registry, extender.registry):
        exported |= {f"{family.name}_total" for family in others.collect()}
        exported |= {family.name for family in others.collect()}
    for page in PAGES:
        named = set(
            re.findall(
                r"\b(?:scheduler|wholepod|rest_client)_[a-z_]+(?:total|seconds|bytes|bucket|pods|size)\b",
                page.read_text(),
            )
        )
        assert named <= exported | {family.name for family in metrics.registry.collect()}, page


# ---- the other pages


def test_packing_figures_are_those_of_the_report() -> None:
    report = {
        row[0].strip("*"): (row[2], row[6])
        for row in table((DOCS / "packing.md").read_text())
        if len(row) == 7  # of both halves; the second ones are quoted
    }
    rows = table(section(ROOT / "README.md", "## How well it packs"))
    assert rows
    for name, nodes, cpu in rows:
        assert report[name.removesuffix(" (the default)")] == (nodes, cpu)


def test_upstream_figures_are_those_of_the_report() -> None:
    said = re.search(
        r"Kubernetes' own (\d+) end-to-end tests of scheduling (\d+) pass", (ROOT / "README.md").read_text()
    )
    ran = re.search(
        r"^## wholepod: (\d+) of (\d+) passed", (DOCS / "reports" / "e2e-upstream.md").read_text(), re.M
    )
    assert said is not None
    assert ran is not None
    assert said.groups() == ran.groups()[::-1]


def test_differences_are_checked() -> None:
    """Each entry of differences.md names the test that shows it, or says why there is none."""
    entries = re.split(r"^### ", (DOCS / "differences.md").read_text(), flags=re.MULTILINE)[1:]
    unchecked = []
    for entry in entries:
        title = entry.split("\n", 1)[0]
        checks = re.findall(r"^Checked by: `(\S+)::(\w+)`$", entry, re.MULTILINE)
        if not checks:
            assert re.search(r"^Not checked by a test: .+", entry, re.MULTILINE), title
            unchecked.append(title)
        for file, name in checks:
            assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), title
    assert unchecked == ["No profiling, no metrics per pod"]
    shown = {name for entry in entries for name in re.findall(r"test_differences\.py::(\w+)", entry)}
    tests = set(re.findall(r"^def (test_\w+)", DIFFERENCES.read_text(), re.MULTILINE))
    assert shown == tests


def test_the_plugin_api_is_described() -> None:
    text = (DOCS / "plugins.md").read_text()
    for name in scheduler.__all__:
        assert f"`{name}`" in text, name
    for event in scheduler.Wake.__members__:
        assert f"`{event}`" in text, event


def test_messages_to_look_up_are_messages_of_ours() -> None:
    """Headings of troubleshooting.md quote the start of a message, … standing for what varies."""
    headings = re.findall(r"^### `(.*)`$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert headings
    sources = "".join(path.read_text() for path in sorted((ROOT / "scheduler").rglob("*.py")))
    joined = re.sub(r'"\s*\n\s*f?"', "", sources)  # texts that go over several lines
    for heading in headings:
        for part in heading.split("…"):
            assert part.strip() in joined, heading


def test_the_example_plugin_works() -> None:
    """As an in-process plugin; installing a package is tested with the example package."""
    plugin = example_plugin()({"share": 0.5})
    nodes = make_engine().state.nodes
    for name, memory in (("small", "1Gi"), ("large", "4Gi")):
        nodes.upsert(make_node(name).allocatable(memory=memory).obj())
    result = plugin.filter(make_pod().req(memory="1Gi").info(), nodes.view())
    assert result.reason_bits.tolist() == [1, 0]
    with pytest.raises(ValueError, match="share must be"):
        example_plugin()({"share": 1})
    with pytest.raises(ValueError, match="takes no arguments, got shore"):
        example_plugin()({"shore": 0.5})
