"""The list of what is in the image, as CycloneDX: Python's packages, the distribution's, and their needs.

It is read from the image itself, never from the lock: what counts is what was installed. The same layers give
the same list, byte for byte.
"""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.contrib.this.builders import this_component
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from debian.deb822 import Packages
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SCHEMA = SchemaVersion.V1_6
INVENTORY = Path(__file__).with_name("inventory.py")
MAX_LICENSE_CHARACTERS = 100  # some packages put the whole text where the name belongs


class Distribution(msgspec.Struct, frozen=True):
    """A Python package that is installed."""

    name: str
    version: str
    summary: str | None
    license: str | None
    requires: list[str]


class Inventory(msgspec.Struct, frozen=True):
    """What `inventory.py` prints."""

    python: str
    packages: list[Distribution]
    dpkg_status: str
    os_release: dict[str, str]


class Installed(NamedTuple):
    """A component, and the keys of those that it depends on, there or not."""

    component: Component
    needs: set[str]


def write(
    inventory: Inventory, *, name: str, version: str, layers: Sequence[str], made_at_unix_s: int
) -> str:
    """The list as JSON. `layers` are the digests of the image that was read."""
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_OID, " ".join(layers)))
    bom.metadata.timestamp = datetime.fromtimestamp(made_at_unix_s, UTC)
    bom.metadata.tools.components.add(this_component())
    properties = [Property(name=f"wholepod:layer:{index}", value=each) for index, each in enumerate(layers)]
    image = Component(
        name=name,
        version=version,
        type=ComponentType.CONTAINER,
        bom_ref=f"{name}:{version}",
        properties=properties,
    )
    bom.metadata.component = image
    for group in (python_packages(inventory), distribution_packages(inventory)):
        for component, needs in group.values():
            bom.components.add(component)
            bom.register_dependency(component, [group[key].component for key in needs if key in group])
    bom.register_dependency(image, bom.components)
    output: str = make_outputter(bom, OutputFormat.JSON, SCHEMA).output_as_string(indent=2)
    return f"{output}\n"


def python_packages(inventory: Inventory) -> dict[str, Installed]:
    """What Python's packages say of themselves, by normalised name."""
    return {
        canonicalize_name(each.name): Installed(
            _library(
                PackageURL("pypi", None, canonicalize_name(each.name), each.version),
                description=each.summary,
                license_text=each.license,
            ),
            {canonicalize_name(need.name) for need in map(Requirement, each.requires) if not _is_extra(need)},
        )
        for each in inventory.packages
    }


def distribution_packages(inventory: Inventory) -> dict[str, Installed]:
    """What dpkg has installed, by name; and Python, where that is none of the distribution's packages.

    Licences are left out: dpkg does not know them, and files named copyright are prose.
    """
    system = inventory.os_release
    found = {}
    for each in Packages.iter_paragraphs(inventory.dpkg_status, use_apt_pkg=False):
        if each["Status"] != "install ok installed":
            continue
        qualifiers = {"arch": each["Architecture"], "distro": f"{system['ID']}-{system['VERSION_ID']}"}
        purl = PackageURL("deb", system["ID"], each["Package"], each["Version"], qualifiers)
        relations = [
            relation for kind in ("pre-depends", "depends") for relation in each.relations[kind] or ()
        ]
        needs = {one["name"] for alternatives in relations for one in alternatives}
        found[each["Package"]] = Installed(_library(purl, description=each["Description"]), needs)
    if "python3" not in found:
        purl = PackageURL("generic", None, "python", inventory.python)
        python = _library(purl, description="The Python interpreter", license_text="PSF-2.0")
        found["python3"] = Installed(python, set())
    return found


def _library(purl: PackageURL, *, description: str | None, license_text: str | None = None) -> Component:
    component = Component(
        name=purl.name,
        version=purl.version,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        purl=purl,
        description=None if description is None else description.splitlines()[0],
    )
    if license_text is not None and len(license_text) <= MAX_LICENSE_CHARACTERS:
        component.licenses.add(LicenseFactory().make_from_string(license_text))
    return component


def _is_extra(need: Requirement) -> bool:
    return need.marker is not None and "extra" in str(need.marker)
