"""The list of what is in an image, on what is installed here, which is no less real."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from cyclonedx.schema import OutputFormat
from cyclonedx.validation import make_schemabased_validator

from scheduler import __version__
from tests.image import sbom

DPKG = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12
Depends: libgcc-s1, libcrypt1 (>= 1:4.4.10) | libcrypt2
Description: GNU C Library: Shared libraries
 Contains the standard libraries that are used by nearly all programs.

Package: libgcc-s1
Status: install ok installed
Architecture: amd64
Version: 14.2.0-19
Description: GCC support library

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1
Description: removed
"""


@pytest.fixture(scope="module")
def inventory() -> sbom.Inventory:
    script = sbom.INVENTORY.read_text()
    printed = subprocess.run(
        [sys.executable, "-I", "-"], input=script, capture_output=True, text=True, check=True
    )
    read = msgspec.json.decode(printed.stdout, type=sbom.Inventory)
    return msgspec.structs.replace(read, dpkg_status=DPKG, os_release={"ID": "debian", "VERSION_ID": "13"})


def written(inventory: sbom.Inventory, *layers: str) -> str:
    return sbom.write(
        inventory,
        name="wholepod",
        version=__version__,
        layers=layers or ("sha256:1",),
        made_at_unix_s=1_700_000_000,
    )


@pytest.fixture(scope="module")
def text(inventory: sbom.Inventory) -> str:
    return written(inventory)


@pytest.fixture(scope="module")
def bill(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def test_it_is_valid(text: str) -> None:
    validator = make_schemabased_validator(OutputFormat.JSON, sbom.SCHEMA)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"libc6"', "6")) is not None


def test_packages_are_named_as_scanners_know_them(bill: dict[str, Any], inventory: sbom.Inventory) -> None:
    names = {each["purl"] for each in bill["components"]}
    assert f"pkg:pypi/wholepod@{__version__}" in names
    assert "pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=debian-13" in names
    assert f"pkg:generic/python@{inventory.python}" in names
    assert not any("gone" in name for name in names)


def test_who_needs_whom(bill: dict[str, Any]) -> None:
    needs = {each["ref"]: each.get("dependsOn", []) for each in bill["dependencies"]}
    [wholepod] = [ref for ref in needs if ref.startswith("pkg:pypi/wholepod@")]
    assert {ref.partition("@")[0] for ref in needs[wholepod]} >= {
        "pkg:pypi/numpy",
        "pkg:pypi/prometheus-client",
    }
    [libc] = [ref for ref in needs if "/libc6@" in ref]
    assert [ref.partition("@")[0] for ref in needs[libc]] == ["pkg:deb/debian/libgcc-s1"]
    assert len(needs[f"wholepod:{__version__}"]) == len(needs) - 1


def test_licences(bill: dict[str, Any]) -> None:
    licences = {each["name"]: each.get("licenses") for each in bill["components"]}
    assert licences["wholepod"] == [{"license": {"id": "Apache-2.0"}}]


def test_the_same_layers_give_the_same_list(inventory: sbom.Inventory, text: str) -> None:
    assert written(inventory) == text
    assert written(inventory, "sha256:2") != text
