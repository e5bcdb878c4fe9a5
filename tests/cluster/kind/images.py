"""Writing images as files that `docker load` and containerd take, without a builder or a base image.

An image here is one layer and a few lines of JSON. The same files give the same image, byte for byte.
"""

import hashlib
import io
import json
import platform
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EPOCH = "1970-01-01T00:00:00Z"
PATH_IN_IMAGE = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURES: Mapping[str, str] = {"x86_64": "amd64", "aarch64": "arm64"}
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How containers of an image start and stop."""

    entrypoint: Sequence[str] = ()
    environment: Sequence[str] = ()
    stop_signal: str = "SIGTERM"

    def to_json(self) -> dict[str, Any]:
        """As the OCI image specification writes it."""
        config: dict[str, Any] = {"Env": [PATH_IN_IMAGE, *self.environment], "StopSignal": self.stop_signal}
        return {**config, "Entrypoint": list(self.entrypoint)} if self.entrypoint else config


def write_scratch_image(
    path: Path, name: str, files: Mapping[str, Path], settings: Settings | None = None
) -> None:
    """Write an image to `path` that holds nothing but `files` (path in the image → file here)."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".layer") as layer:
        with tarfile.open(fileobj=layer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for folder in _folders(files):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            for inside, source in sorted(files.items()):
                archive.add(source.resolve(), inside.strip("/"), filter=_anonymous)
        layer.flush()
        write_image(path, name, Path(layer.name), settings or Settings())


def write_image(path: Path, name: str, layer: Path, settings: Settings) -> None:
    """Write an image to `path` whose one layer is the tar archive `layer`."""
    digest = hashlib.sha256()
    with layer.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    config = json.dumps(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": EPOCH,
            "config": settings.to_json(),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest.hexdigest()}"]},
            "history": [{"created": EPOCH}],
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layer_name = f"{digest.hexdigest()}/layer.tar"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [layer_name]}]
    with tarfile.open(path, "w") as image, layer.open("rb") as content:
        _add(image, config_name, config)
        entry = tarfile.TarInfo(layer_name)
        entry.size = layer.stat().st_size
        image.addfile(entry, content)
        _add(image, "manifest.json", json.dumps(manifest).encode())


def _folders(files: Mapping[str, Path]) -> list[str]:
    parents = {parent for inside in files for parent in Path(inside.strip("/")).parents}
    return sorted(str(parent) for parent in parents if parent != Path("."))


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = 0
    return entry


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
