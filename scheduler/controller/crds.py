"""Installs the CRD of `scheduling.x-k8s.io` PodGroups, where there is none.

One that is there is left alone, whatever its version: it may be the scheduler-plugins project's, whose
objects are in use. So this creates, and never applies.
"""

from __future__ import annotations

from importlib.resources import files

import msgspec
import structlog
import yaml

from scheduler.kube.client import KubeClient
from scheduler.kube.errors import ApiError, ErrorKind

log = structlog.get_logger(__name__)

PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def manifest() -> str:
    """As YAML; deploy/crd-podgroups.yaml is the same."""
    return files("scheduler.controller").joinpath("crd-podgroups.yaml").read_text(encoding="utf-8")


async def install(client: KubeClient) -> bool:
    """Whether it was created now. Raises KubeError."""
    body = msgspec.json.encode(yaml.safe_load(manifest()))
    try:
        await client.request("POST", PATH, body=body)
    except ApiError as error:
        if error.kind is not ErrorKind.ALREADY_EXISTS:
            raise
        log.info("the CRD of PodGroups is installed already and is left as it is")
        return False
    log.info("installed the CRD of PodGroups")
    return True
