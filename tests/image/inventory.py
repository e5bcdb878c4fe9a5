"""Prints what is installed, as JSON: run by the image's own Python, without network, by standard input.

Nothing but the standard library is there for sure. What is printed is what packages say of themselves.
"""

import json
import platform
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

# An environment has packages of its own; the Python that it was made with may bring some (pip).
base = sysconfig.get_path("purelib", vars={"base": sys.base_prefix})
packages = [
    {
        "name": each.name,
        "version": each.version,
        "summary": each.metadata.json.get("summary"),
        "license": each.metadata.json.get("license_expression") or each.metadata.json.get("license"),
        "requires": each.requires or [],
    }
    for each in distributions(path=[*sys.path, base])
]
status = Path("/var/lib/dpkg/status")
print(
    json.dumps(
        {
            "python": platform.python_version(),
            "packages": packages,
            "dpkg_status": status.read_text() if status.exists() else "",
            "os_release": platform.freedesktop_os_release(),
        }
    )
)
