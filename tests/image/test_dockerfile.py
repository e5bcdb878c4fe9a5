"""What can be told of the image without building it: that any engine takes the Dockerfile, and that the chart
runs it as it is meant to be run."""

from __future__ import annotations

import re
import tomllib
from itertools import takewhile
from pathlib import PurePath
from typing import NamedTuple

import pytest
import yaml
from click.testing import CliRunner

from scheduler.cli import main
from tests.chart.helm import of_kind, render
from tests.image.base import DOCKERFILE, ROOT, default

# The options that Docker 20.10 without BuildKit knows; nothing in use is older.
CLASSIC_OPTIONS = {"FROM": {"--platform"}, "COPY": {"--from", "--chown"}, "ADD": {"--chown"}}
ONLY_BUILDKIT = re.compile(r"<<-?['\"]?\w|\b(TARGET|BUILD)(PLATFORM|OS|ARCH|VARIANT)\b")
LABELS = ("title", "description", "licenses", "version", "revision", "source", "base.name")


class Instruction(NamedTuple):
    word: str
    options: list[str]
    rest: str


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, with lines that continue put together."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = []
    for line in re.sub(r"\\\n", " ", kept).splitlines():
        if line.strip():
            word, *words = line.split()
            options = list(takewhile(lambda each: each.startswith("--"), words))
            found.append(Instruction(word.upper(), options, " ".join(words[len(options) :])))
    return found


def last_stage() -> list[Instruction]:
    all_of_it = instructions(DOCKERFILE.read_text())
    start = max(index for index, each in enumerate(all_of_it) if each.word == "FROM")
    return all_of_it[start:]


def only(word: str) -> str:
    [found] = [each.rest for each in last_stage() if each.word == word]
    return found


def complaints(text: str) -> list[str]:
    """What a builder without BuildKit would not take, or would take for a comment and do otherwise."""
    directives = takewhile(lambda line: re.match(r"#\s*\w+\s*=", line), text.splitlines())
    found = [f"directive: {line}" for line in directives]
    for each in instructions(text):
        known = CLASSIC_OPTIONS.get(each.word, set())
        found += [f"{each.word} {o}" for o in each.options if o.partition("=")[0] not in known]
        found += [
            f"{each.word} {match[0]}"
            for match in ONLY_BUILDKIT.finditer(" ".join([*each.options, each.rest]))
        ]
    return found


def test_any_engine_takes_it() -> None:
    assert complaints(DOCKERFILE.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "# syntax=docker/dockerfile:1\nFROM x",
        "FROM x\nRUN --mount=type=cache,target=/c true",
        "FROM x\nRUN <<EOF\ntrue\nEOF",
        "FROM x\nCOPY --chmod=755 a b",
        "FROM x\nCOPY --link \\\n a b",
        "FROM x\nARG TARGETARCH",
        "FROM --platform=$BUILDPLATFORM x",
    ],
)
def test_what_old_engines_do_not_know_is_seen(text: str) -> None:
    assert complaints(text)


def test_the_last_stage_runs_nothing() -> None:
    """Hence it is the same on every machine, and for every architecture without emulating it."""
    assert {each.word for each in last_stage()} == {
        *("FROM", "COPY", "ENV", "USER", "ENTRYPOINT", "CMD", "ARG", "LABEL")
    }


def test_labels() -> None:
    names = set(re.findall(r'org\.opencontainers\.image\.([\w.]+)="', only("LABEL")))
    assert names == set(LABELS)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f'licenses="{project["license"]}"' in only("LABEL")
    assert f'description="{project["description"]}"' in only("LABEL")


def test_the_chart_runs_the_user_of_the_image() -> None:
    user, _, group = only("USER").partition(":")
    assert 0 not in {int(user), int(group)}
    objects = render()
    for part in ("", "-controller"):
        spec = of_kind(objects, "Deployment", part)["spec"]["template"]["spec"]
        [container] = spec["containers"]
        assert spec["securityContext"]["runAsUser"] == int(user)
        assert spec["securityContext"]["runAsGroup"] == int(group)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_commands_that_it_is_run_with_exist() -> None:
    assert only("ENTRYPOINT") == '["wholepod"]'
    words = [yaml.safe_load(only("CMD"))]
    for part in ("", "-controller"):
        spec = of_kind(render(), "Deployment", part)["spec"]["template"]["spec"]
        assert "command" not in spec["containers"][0]  # the image's entrypoint
        words.append(spec["containers"][0]["args"])
    for command, *_ in words:
        assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0


def test_what_is_copied_is_there_and_let_in() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copied = set()
    for each in instructions(DOCKERFILE.read_text()):
        if each.word == "COPY" and not any(option.startswith("--from") for option in each.options):
            copied.update(each.rest.split()[:-1])
    assert copied == let_in
    assert all((ROOT / PurePath(path)).exists() for path in copied)


def test_the_base_has_a_python_that_will_do() -> None:
    minor = re.match(r"python:3\.(\d+)-", default())
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert minor is not None
    assert int(minor[1]) >= int(oldest.removeprefix(">=3."))


def test_what_builds_the_package_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pinned = {pin.partition("==")[0] for pin in project["tool"]["uv"]["build-constraint-dependencies"]}
    assert {re.split(r"[<>=]", need)[0] for need in project["build-system"]["requires"]} <= pinned
