"""The node image, where none can be pulled: Debian's packages, our programs, the control plane's images.

The image goes by the hash of everything that it is made from, so it is made again when, and only when, any
of that changes. What `kubeadm init` wants to run is asked of kubeadm itself; each of those images is one
program, from scratch, and all are put into the node's containerd beforehand, since nothing can be pulled.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import sources
from tests.cluster.assets import Report, cache_home
from tests.cluster.build import lock
from tests.cluster.errors import ClusterError
from tests.cluster.kind.engine import Engine
from tests.cluster.kind.images import Settings, write_image, write_scratch_image
from tests.cluster.kind.shell import run

HERE = Path(__file__).parent
NODE_FILES = HERE / "node"
REPOSITORY = "localhost/kubernetes"  # kubeadm's imageRepository: nobody can mistake it for one to pull from
NETD_IMAGE = f"{REPOSITORY}/netd:1"
IN_CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd")
WITH_ENTRYPOINT = ("coredns", "pause")  # whose manifests give arguments only
ON_NODES = ("kubelet", "kubeadm")
PROGRAMS = (*ON_NODES, *IN_CONTROL_PLANE, *WITH_ENTRYPOINT, "netd")
CNI_PLUGINS = ("ptp", "host-local", "loopback", "portmap")
UNITS = ("containerd", "kubelet")
SETTINGS = Settings(
    entrypoint=["/usr/local/bin/entrypoint", "/sbin/init"],
    environment=["container=docker"],
    stop_signal="SIGRTMIN+3",  # systemd executes itself anew on SIGTERM
)


def programs(report: Report) -> dict[str, Path]:
    """The programs of a node, found or built, and kubectl, which kind calls inside. Raises ClusterError."""
    found = {name: asset.path for name, asset in sources.find(PROGRAMS, report=report).items()}
    return {**found, "kubectl": sources.kubectl()}


def name_of(tools: Mapping[str, Path]) -> str:
    """The name of the image that these programs and the files here make."""
    digest = hashlib.sha256()
    files = [path for path in HERE.rglob("*") if path.is_file() and _matters(path)]
    for label, path in [
        *((str(path.relative_to(HERE)), path) for path in sorted(files)),
        *sorted(tools.items()),
    ]:
        with path.open("rb") as file:
            digest.update(f"{label} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return f"localhost/wholepod-node:{digest.hexdigest()[:16]}"


def build(name: str, engine: Engine, tools: Mapping[str, Path], report: Report) -> None:
    """Make the image and load it into the engine, unless it is there. Needs root.

    Raises ClusterError with the last words of what went wrong.
    """
    home = cache_home()
    home.mkdir(parents=True, exist_ok=True)
    with lock(home / "kind-node.lock", report):
        if engine.has_image(name):
            return
        with tempfile.TemporaryDirectory(prefix="kind-node-", dir=home) as scratch:
            _build(name, engine, tools, Path(scratch), report)


def _build(name: str, engine: Engine, tools: Mapping[str, Path], scratch: Path, report: Report) -> None:
    root, images = scratch / "root", scratch / "images"
    images.mkdir()
    base = _base(scratch, report)
    report("Putting the node's files together")
    root.mkdir()
    run(["tar", "-C", root, "-xf", base], doing="Unpacking the node's distribution")
    wanted = _images_of(tools["kubeadm"])
    _put_files(root, tools, pause=wanted["pause"])
    report("Writing the control plane's images")
    for each, image in wanted.items():
        inside = f"/usr/local/bin/{each}"
        files = {inside: tools[each]}
        if each == "kube-proxy":
            files |= _nft(root)
        settings = Settings(entrypoint=[inside] if each in WITH_ENTRYPOINT else ())
        write_scratch_image(images / f"{each}.tar", image, files, settings)
    netd = Settings(entrypoint=["/netd"])
    write_scratch_image(images / "netd.tar", NETD_IMAGE, {"/netd": tools["netd"]}, netd)
    report("Putting them into the node's containerd")
    preload: list[str | Path] = ["unshare", "--mount", "sh", HERE / "preload-images.sh", root, images]
    run(preload, doing="Putting images into the node's containerd")
    (root / "mnt/images").rmdir()
    shutil.rmtree(images)
    report("Loading the node image into the engine")
    layer, archive = scratch / "layer.tar", scratch / "image.tar"
    run(["tar", "-C", root, "--sort=name", "-cf", layer, "."], doing="Packing the node image")
    write_image(archive, name, layer, SETTINGS)
    layer.unlink()
    engine.docker("load", "--quiet", "--input", str(archive), doing="Loading the node image")
    for other in engine.tags(name.partition(":")[0]):
        if other != name:
            with contextlib.suppress(ClusterError):  # somebody may use it still
                engine.docker("rmi", other, doing="Removing an earlier node image")


def _base(scratch: Path, report: Report) -> Path:
    """The distribution's part, kept for the next time."""
    script = HERE / "node-base.sh"
    archive = cache_home() / f"kind-base-{hashlib.sha256(script.read_bytes()).hexdigest()[:16]}.tar"
    if not archive.exists():
        report("Fetching the node's distribution by debootstrap (once, about a minute)")
        run(["sh", script, scratch / "base", archive], doing="Making the node's distribution")
    return archive


def _images_of(kubeadm: Path) -> dict[str, str]:
    """What kubeadm will ask for: program → the name of its image."""
    version = run([kubeadm, "version", "-o", "short"], doing="Asking kubeadm for its version").strip()
    command: list[str | Path] = [kubeadm, "config", "images", "list", f"--kubernetes-version={version}"]
    lines = run([*command, f"--image-repository={REPOSITORY}"], doing="Asking kubeadm for its images").split()
    return {image.rpartition("/")[2].partition(":")[0]: image for image in lines}


def _put_files(root: Path, tools: Mapping[str, Path], *, pause: str) -> None:
    shutil.copytree(NODE_FILES, root, dirs_exist_ok=True)
    for folder in ("usr/local/bin", "etc/containerd", "etc/systemd", "kind"):
        _own_by_root(root / folder)
    containerd = root / "etc/containerd/config.toml"
    containerd.write_text(containerd.read_text().replace("@PAUSE_IMAGE@", pause))
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    for unit in UNITS:
        (wants / f"{unit}.service").symlink_to(f"../{unit}.service")
    target = root / "etc/systemd/system/default.target"
    target.unlink(missing_ok=True)
    target.symlink_to("/usr/lib/systemd/system/multi-user.target")
    for each in (*ON_NODES, "kubectl"):
        shutil.copyfile(tools[each], root / "usr/bin" / each)
        (root / "usr/bin" / each).chmod(0o755)
    version = run([tools["kubeadm"], "version", "-o", "short"], doing="Asking kubeadm for its version")
    (root / "kind/version").write_text(version)
    for folder in ("etc/kubernetes/manifests", "etc/cni/net.d", "opt/cni/bin", "lib/modules"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for plugin in CNI_PLUGINS:
        (root / "opt/cni/bin" / plugin).symlink_to(f"/usr/lib/cni/{plugin}")
    spec = json.loads(
        run(["chroot", root, "ctr", "oci", "spec"], doing="Asking containerd for its runtime spec")
    )
    del spec["process"]["rlimits"]
    (root / "etc/containerd/cri-base.json").write_text(json.dumps(spec))


def _nft(root: Path) -> dict[str, Path]:
    """The one tool that kube-proxy runs in its nftables mode, with its libraries and the loader."""
    libraries = run(["chroot", root, "ldd", "/usr/sbin/nft"], doing="Listing the libraries of nft").split()
    inside = ["/usr/sbin/nft", *(word for word in libraries if word.startswith("/"))]
    return {path: root / path.removeprefix("/") for path in inside}


def _own_by_root(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 0, 0, follow_symlinks=False)


def _matters(path: Path) -> bool:
    """Whether the image depends on a file of this folder: what goes in, and what makes it."""
    makers = ("node_image.py", "images.py", "node-base.sh", "preload-images.sh")
    return NODE_FILES in path.parents or path.name in makers
