"""The plain manifests in deploy/, made from the chart: what `helm template` says, without what is Helm's.

One source, so that the two can't drift. The chart's templates become files of a kustomize base; what a value
switches on becomes an overlay: new objects as files, changed ones as patches of just what differs. Three
things are done as kustomize does them, not as Helm: the configuration is a file of its own whose hash is in
the ConfigMap's name (so a change rolls out), the image and the dashboards stand in the kustomization, and the
certificate is the user's. `make chart` writes the files, a test holds them equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.chart.helm import helm
from tests.chart.schema import CHART

Json = dict[str, Any]
DEPLOY = CHART.parents[1] / "deploy"
NAMESPACE, SECRET = "kube-system", "wholepod-tls"
VALUES = (f"--set=serving.tls.secretName={SECRET}", "--set=crds.enabled=false")
"""Of all: the certificate can't be in a repository, and the CRD is created, never applied over another's."""
CONFIG_MAP = "wholepod-config"
"""A name of its own, or kustomize would put the hash behind the lease's name in the Role, too."""
CONFIGURATION = "overlays/second-scheduler/config.yaml"

_HELMS = re.compile(r"^ +(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n", re.MULTILINE)
_MOUNTED = re.compile(r"(^ +configMap:\n +name: )wholepod$", re.MULTILINE)
_CHECKSUM = re.compile(r"^ +annotations:\n( +#.*\n)* +checksum/configuration: .*\n", re.MULTILINE)
_DOCUMENT = re.compile(
    r"^---\n# Source: wholepod/templates/(\S+)\n(.*?)(?=^---\n|\Z)", re.MULTILINE | re.DOTALL
)
_SOMEWHERE_ELSE = re.compile(r"tests/|configmap\.yaml|dashboards\.yaml")
"""Templates of what is no file of its own here."""


@dataclass(frozen=True)
class Overlay:
    """What `values` add to the chart's defaults; `folder` is where that is written."""

    name: str
    folder: str
    values: tuple[str, ...]


OVERLAYS = (
    Overlay("second-scheduler", "overlays/second-scheduler", ()),
    Overlay(
        "monitoring",
        "monitoring",
        (
            "--set=serviceMonitor.enabled=true",
            "--set=prometheusRule.enabled=true",
            "--set=dashboards.enabled=true",
        ),
    ),
    Overlay(
        "webhook",
        "overlays/webhook",
        (
            "--set=webhook.enabled=true",
            rf"--set=webhook.annotations.cert-manager\.io/inject-ca-from={NAMESPACE}/wholepod",
        ),
    ),
)

_FILES = {"serviceaccount.yaml": "rbac.yaml", "controller-rbac.yaml": "rbac-controller.yaml"}
"""Template → the file that it goes to, if that is not called alike."""
_ABOUT = {
    "base/rbac.yaml": """\
What Wholepod may do in a cluster: exactly what it asks for at start, and no more
(scheduler/kube/permissions.py; tests/unit/test_rbac.py holds the two equal, tests/deploy/test_rights.py takes
each right away and sees what fails).

Profiles' schedulerNames do not matter here; the lease's name and namespace do: if the configuration changes
leaderElection.resourceName or resourceNamespace, change the Role below alike (the journal is called like the
lease, with -journal behind it).
""",
    "base/rbac-controller.yaml": """\
What `wholepod controller` may do: exactly what it asks for at start, and no more
(scheduler/controller/rights.py). The scheduler has an account of its own, in rbac.yaml.
""",
    "overlays/webhook/webhook.yaml": r"""
Has the API server ask the controller about objects that could never be scheduled. Optional, and never in the
way: without an answer within 2 s the object is admitted.

caBundle has to be the authority that signed the certificate in the Secret wholepod-tls. With cert-manager,
the annotation sees to that. Without it:
  ca=$(base64 -w0 ca.crt)
  kubectl patch validatingwebhookconfiguration wholepod --type json --patch "[
    {\"op\": \"add\", \"path\": \"/webhooks/0/clientConfig/caBundle\", \"value\": \"$ca\"},
    {\"op\": \"add\", \"path\": \"/webhooks/1/clientConfig/caBundle\", \"value\": \"$ca\"}]"

If the profiles have other schedulerNames than wholepod, name them in matchConditions.
""",
}
"""What stands at the top of a file."""


def rendered(values: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """(template, text) of each object that the chart makes."""
    output = helm("template", "wholepod", CHART, f"--namespace={NAMESPACE}", *VALUES, *values)
    for template, text in _DOCUMENT.findall(output):
        text = _CHECKSUM.sub("", _HELMS.sub("", text))
        yield template, _MOUNTED.sub(rf"\1{CONFIG_MAP}", text).strip() + "\n"


def identity(item: Json) -> tuple[str, str]:
    return item["kind"], item["metadata"]["name"]


def files() -> dict[str, str]:
    """Path below deploy/ → text, of all that is generated."""
    found: dict[str, list[str]] = {}
    base: dict[tuple[str, str], Json] = {}
    for template, text in rendered():
        item = yaml.safe_load(text)
        base[identity(item)] = item
        if template == "configmap.yaml":
            found[CONFIGURATION] = [_configuration(item["data"]["config.yaml"])]
        elif not _SOMEWHERE_ELSE.match(template):
            name = _FILES.get(template, template)
            if item["metadata"]["name"].endswith("-metrics-reader"):
                name = "metrics-reader.yaml"
            found.setdefault(f"base/{name}", []).append(text)
    for overlay in OVERLAYS:
        for template, text in rendered(overlay.values):
            item = yaml.safe_load(text)
            before = base.get(identity(item))
            if _SOMEWHERE_ELSE.match(template) or item == before:
                continue
            if before is None:
                found.setdefault(f"{overlay.folder}/{template}", []).append(text)
            else:
                patch = yaml.safe_dump({**_named(item), **difference(before, item)}, sort_keys=False)
                found.setdefault(f"{overlay.folder}/patch-{template}", []).append(patch)
    return {path: _header(path) + "---\n".join(texts) for path, texts in found.items()}


def difference(before: Json, after: Json) -> Json:
    """What a strategic merge into `before` makes `after` of; lists of named things are merged by name."""
    changed: Json = {}
    for key, value in after.items():
        old = before.get(key)
        if old == value:
            continue
        if isinstance(old, dict):
            changed[key] = difference(old, value)
        elif isinstance(old, list) and all("name" in each for each in value if isinstance(each, dict)):
            changed[key] = _list_difference(old, value)
        else:
            changed[key] = value
    return changed


def _list_difference(before: list[Any], after: list[Any]) -> list[Any]:
    known = {each["name"]: each for each in before if isinstance(each, dict)}
    if [*known] != [each["name"] for each in after if isinstance(each, dict)] or not known:
        return after  # in its order: what a merge adds stands first otherwise
    return [
        {"name": each["name"], **difference(known[each["name"]], each)}
        for each in after
        if each != known[each["name"]]
    ]


def _named(item: Json) -> Json:
    metadata = {key: item["metadata"][key] for key in ("name", "namespace") if key in item["metadata"]}
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata}


def _configuration(text: str) -> str:
    """In the order of docs/configuration.md."""
    fields = yaml.safe_load(text)
    first = {key: fields.pop(key) for key in ("apiVersion", "kind", "profiles")}
    return yaml.safe_dump({**first, **fields}, sort_keys=False)


def _header(path: str) -> str:
    lines = ["Made from charts/wholepod by `make chart`.", *_ABOUT.get(path, "").strip().splitlines()]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def write(folder: Path = DEPLOY) -> None:
    for path, text in files().items():
        (folder / path).write_text(text)


if __name__ == "__main__":
    write()
