"""`make demo` as people and CI run it, and that it would say so if what it shows were not true."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.cluster import Api
from tests.demo import story
from tests.demo.scene import HERE, DemoError, Scene

REPOSITORY = HERE.parents[1]
DEMO = [sys.executable, "-m", "tests.demo"]
DEADLINE_S = 120.0


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """The demo's TMPDIR; it must be empty again when the demo has ended."""
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def environment(temporary: Path, **further: str) -> dict[str, str]:
    """This process's, without what would make a pipe look like a terminal."""
    ours = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "CI")}
    return {**ours, "TMPDIR": str(temporary), "COLUMNS": "80", "TERM": "xterm", **further}


def test_once_shows_and_checks_all_acts(temporary: Path) -> None:
    done = subprocess.run(
        DEMO, cwd=REPOSITORY, env=environment(temporary, CI="true"), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, rest = done.stdout.split("2. As two containers of one pod")
    second, third = rest.split("3. As a gang")
    assert re.search(r"node-a .* 1\.00 of 1\.25 GiB +a 1 GiB", first)
    assert re.search(r"node-b .* 0\.50 of 2\.00 GiB +b 0\.5 GiB", first)
    assert re.search(r"node-a .* 0\.00 of 1\.25 GiB", second)
    assert re.search(r"node-b .* 1\.50 of 2\.00 GiB +ab \(a 1 GiB \+ b 0\.5 GiB\)", second)
    assert re.search(r"atomic +incomplete +0\.0 +0\.0 +0 +0 ", third)
    assert re.search(r"hoarding +holding +0\.0 +[1-9]\d*\.\d +1 +0 ", third)
    assert re.search(r"optimistic +claimed +0\.0 +0\.0 +1 +0 ", third)
    for pod in ("hoarding-a", "hoarding-b", "optimistic-a", "optimistic-b"):
        assert f"Successfully assigned default/{pod} to node-b" in third
    assert re.search(r'wholepod_node_memory_bytes\{state="requested"\} +1\.5 GiB', third)
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert len(done.stdout.splitlines()) <= 55


class Terminal:
    """The demo on a terminal of its own, as a person sees it."""

    def __init__(self, temporary: Path) -> None:
        self._ours, theirs = pty.openpty()
        env = environment(temporary, LINES="50")
        self.process = subprocess.Popen(
            DEMO, cwd=REPOSITORY, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        os.set_blocking(self._ours, False)
        self.text = ""

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def wait_for(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < deadline, f"did not happen in time; the screen:\n{self.text}"
            self._read()
            time.sleep(0.05)

    def wait_for_text(self, text: str) -> None:
        self.wait_for(lambda: text in self.text)

    def _read(self) -> None:
        try:
            new = os.read(self._ours, 1 << 16)
        except (BlockingIOError, OSError):  # nothing yet; or the other end is closed
            return
        self.text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", new.decode(errors="replace"))


@pytest.fixture
def terminal(temporary: Path) -> Iterator[Terminal]:
    terminal = Terminal(temporary)
    yield terminal
    terminal.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stays_follows_what_the_user_does_and_leaves_nothing(terminal: Terminal, number: int) -> None:
    terminal.wait_for_text("Until Ctrl-C, live:")
    kubeconfig = re.search(r"export KUBECONFIG=(\S+)", terminal.text)
    assert kubeconfig is not None
    with Api.from_kubeconfig(Path(kubeconfig[1])) as api:
        spec = {
            "schedulerName": "wholepod",
            "containers": [{"name": "c", "image": "nginx", "resources": {"requests": {"memory": "3Gi"}}}],
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mine"}, "spec": spec}
        api.create(pod)
        terminal.wait_for_text("mine 3 GiB")
        terminal.wait_for_text("0/2 nodes are available: 2 Insufficient memory.")
        # Without a kubelet, a deleted pod on a node would stay for ever.
        api.create(json.loads(json.dumps(pod).replace("mine", "small").replace("3Gi", "64Mi")))
        terminal.wait_for_text("small 0.0625 GiB")
        api.delete("/api/v1/namespaces/default/pods/small")
        terminal.wait_for(
            lambda: api.count("/api/v1/namespaces/default/pods", fieldSelector="metadata.name=small") == 0
        )
    os.killpg(terminal.process.pid, number)
    terminal.wait_for(lambda: terminal.process.poll() is not None)
    assert terminal.process.returncode == 0


def test_says_what_is_not_as_told(tmp_path: Path) -> None:
    """Under another objective the first act ends otherwise."""
    other = tmp_path / "wholepod.yaml"
    other.write_text((HERE / "wholepod.yaml").read_text().replace("objective: tight", "objective: spread"))
    with (
        Scene(report=lambda line: None, configuration=other) as scene,
        open(os.devnull, "w") as nowhere,
        pytest.raises(DemoError, match="the node of pod a should be node-a, and is node-b"),
    ):
        story.tell(scene, Console(file=nowhere))


def test_says_what_the_machine_lacks(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    env = environment(temporary, CI="true", PATH=str(empty), XDG_CACHE_HOME=str(empty))
    for variable in ("WHOLEPOD_ASSETS", "KUBEBUILDER_ASSETS"):
        env.pop(variable, None)
    done = subprocess.run(DEMO, cwd=REPOSITORY, env=env, capture_output=True, text=True)
    assert done.returncode == 3
    assert "there is no go on PATH" in done.stderr
    assert "Traceback" not in done.stderr
