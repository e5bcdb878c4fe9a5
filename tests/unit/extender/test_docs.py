"""docs/extender.md against the code."""

import shutil
import subprocess
from pathlib import Path

import pytest

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


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to follow the recipe with")
def test_certificates_of_the_recipe(tmp_path: Path) -> None:
    """As strictly as Python 3.13 asks for, and neither is good for the other side."""
    recipe = section(PAGE, "## Set up").split("```sh\n")[1].split("kubectl")[0]
    subprocess.run(["bash", "-ec", recipe], cwd=tmp_path, check=True, capture_output=True)

    def is_good(who: str, purpose: str) -> bool:
        command = [
            "openssl",
            "verify",
            "-x509_strict",
            "-CAfile",
            "ca.crt",
            "-purpose",
            purpose,
            f"{who}.crt",
        ]
        return subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0

    assert [is_good("client", "sslclient"), is_good("server", "sslserver")] == [True, True]
    assert [is_good("client", "sslserver"), is_good("server", "sslclient")] == [False, False]
