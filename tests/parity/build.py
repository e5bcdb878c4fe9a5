"""Builds the oracle, once per version of its sources, into the user's cache."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.assets import Pin, Report, cache_folder
from tests.cluster.build import build
from tests.cluster.progress import plain_report

PROGRAM = Pin("oracle", Path(__file__).with_name("oracle"), "k8s.io/kubernetes", ".")


def oracle_program(report: Report | None = None) -> Path:
    """Path of the oracle, built if need be: seconds after a build of kube-scheduler, else minutes.

    Raises ClusterError when it cannot be built.
    """
    program = cache_folder(PROGRAM) / PROGRAM.name
    if not program.exists():
        build([PROGRAM], report=report or plain_report())
    return program
