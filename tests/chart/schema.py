"""values.schema.json, made from the chart's own part and from the configuration's types.

So what the chart lets pass as `configuration` and what the scheduler reads can't drift apart: a typo is
found by `helm install`, before any pod has started. `make chart` writes the file, a test holds it equal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from scheduler.config import DURATION_FIELDS, Configuration

CHART = Path(__file__).parents[2] / "charts" / "wholepod"
SCHEMA = CHART / "values.schema.json"
CRD = CHART.parents[1] / "deploy" / "crd-podgroups.yaml"
COPY_OF_CRD = CHART / "files" / "crd-podgroups.yaml"
"""A chart can't read files outside of its folder."""
MONITORING = CHART.parents[1] / "deploy" / "monitoring"
COPIES = {
    CRD: COPY_OF_CRD,
    **{
        MONITORING / name: CHART / "files" / name
        for name in ("rules.yaml", "wholepod-scheduling.json", "wholepod-co-scheduling.json")
    },
}
"""File → the chart's own."""
Json = dict[str, Any]

SET_BY_THE_CHART = ("apiVersion", "kind", "bindAddress", "tls", "authorization")
"""Fields of the configuration that follow from other values."""
LEASE_SET_BY_THE_CHART = ("leaderElect", "resourceName", "resourceNamespace")

TEXT: Json = {"type": "string"}
NAME: Json = {"type": "string", "minLength": 1}
FLAG: Json = {"type": "boolean"}
PORT: Json = {"type": "integer", "minimum": 1, "maximum": 65535}
LABELS: Json = {"type": "object", "additionalProperties": {"type": "string"}}
KUBERNETES: Json = {"type": "object"}
"""Checked by the API server."""
LIST: Json = {"type": "array"}
DURATION: Json = {"type": ["string", "number"], "pattern": r"^((\d+(\.\d*)?|\.\d+)(h|ms|m|s|us|µs|ns))+$"}


def strict(properties: Json, **more: Any) -> Json:
    """An object that has these fields and no others."""
    return {"type": "object", "additionalProperties": False, "properties": properties, **more}


def values_schema() -> Json:
    """The whole document."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart wholepod",
        **strict(
            {
                "nameOverride": TEXT,
                "fullnameOverride": TEXT,
                "image": strict(
                    {
                        "repository": NAME,
                        "tag": TEXT,
                        "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
                        "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
                    }
                ),
                "imagePullSecrets": LIST,
                "replicaCount": {"type": "integer", "minimum": 0},
                "configuration": {"$ref": "#/definitions/Configuration"},
                "serving": strict(
                    {
                        "port": PORT,
                        "authorization": {"enum": ["delegated", "none"]},
                        "tls": strict({"secretName": TEXT, "caBundle": TEXT}),
                    }
                ),
                "controller": strict(
                    {
                        "enabled": FLAG,
                        "replicaCount": {"type": "integer", "minimum": 0},
                        "port": PORT,
                        "resources": KUBERNETES,
                    }
                ),
                "webhook": strict(
                    {
                        "enabled": FLAG,
                        "port": PORT,
                        "failurePolicy": {"enum": ["Fail", "Ignore"]},
                        "timeoutSeconds": {"type": "integer", "minimum": 1, "maximum": 30},
                        "annotations": LABELS,
                    }
                ),
                "extender": strict(
                    {
                        "enabled": FLAG,
                        "replicaCount": {"type": "integer", "minimum": 0},
                        "port": PORT,
                        "metricsPort": PORT,
                        "clusterIP": TEXT,
                        "httpTimeout": DURATION,
                        "unknownNodes": {"enum": ["refuse", "pass"]},
                        "tls": strict({"secretName": TEXT}),
                        "profiles": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"$ref": "#/definitions/ProfileConfig"},
                        },
                        "clientConnection": {"$ref": "#/definitions/ClientConnection"},
                        "resources": KUBERNETES,
                    }
                ),
                "crds": strict({"enabled": FLAG, "keep": FLAG}),
                "serviceAccount": strict({"create": FLAG, "name": TEXT, "annotations": LABELS}),
                "rbac": strict({"create": FLAG, "metricsReader": FLAG}),
                "podAnnotations": LABELS,
                "podLabels": LABELS,
                "priorityClassName": TEXT,
                "podSecurityContext": KUBERNETES,
                "securityContext": KUBERNETES,
                "resources": KUBERNETES,
                "nodeSelector": LABELS,
                "tolerations": LIST,
                "affinity": KUBERNETES,
                "topologySpreadConstraints": LIST,
                "terminationGracePeriodSeconds": {"type": "integer", "minimum": 10},
                "podDisruptionBudget": strict(
                    {
                        "enabled": FLAG,
                        "maxUnavailable": {
                            "oneOf": [
                                {"type": "integer", "minimum": 1},
                                {"type": "string", "pattern": "^[1-9][0-9]?%$"},
                            ]
                        },
                    }
                ),
                "networkPolicy": strict(
                    {"enabled": FLAG, "metricsFrom": LIST, "apiServerPorts": {"type": "array", "items": PORT}}
                ),
                "service": strict({"annotations": LABELS}),
                "serviceMonitor": strict(
                    {
                        "enabled": FLAG,
                        "additionalLabels": LABELS,
                        "interval": NAME,
                        "scrapeTimeout": NAME,
                        "metricRelabelings": LIST,
                        "relabelings": LIST,
                    }
                ),
                "prometheusRule": strict({"enabled": FLAG, "additionalLabels": LABELS, "runbookUrl": TEXT}),
                "dashboards": strict({"enabled": FLAG, "labels": LABELS, "annotations": LABELS}),
                "global": KUBERNETES,  # what a parent chart shares with all its parts
            }
        ),
        "definitions": _configuration(),
    }


def _configuration() -> Json:
    """The types of the configuration file, by name."""
    definitions: Json = msgspec.json.schema(Configuration)["$defs"]
    for definition in definitions.values():
        for name, field in definition.get("properties", {}).items():
            field.pop("default", None)
            if name in DURATION_FIELDS:
                field.clear()
                field.update(DURATION)
        definition.pop("description", None)
    for name in SET_BY_THE_CHART:
        del definitions["Configuration"]["properties"][name]
    for name in LEASE_SET_BY_THE_CHART:
        del definitions["LeaderElection"]["properties"][name]
    del definitions["ClientConnection"]["properties"]["kubeconfig"]
    del definitions["Tls"]
    definitions["Configuration"]["properties"]["profiles"]["minItems"] = 1
    text = json.dumps(definitions).replace("#/$defs/", "#/definitions/")
    found: Json = json.loads(text)
    return found


def text() -> str:
    return json.dumps(values_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(text())
    for original, copy in COPIES.items():
        copy.write_text(original.read_text())
