"""Which of the two ways leads to a cluster on this machine, or what stands in both."""

import enum
from dataclasses import dataclass

from tests.cluster.errors import ClusterError


class Way(enum.StrEnum):
    """Where the node image comes from."""

    PULLED = "pulled"  # kind's own, from a registry or already in the engine
    BUILT = "built"  # made here, without any registry


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of the machine before anything is changed."""

    engine: bool  # a Docker engine answers
    node_image: bool  # and has kind's node image, pulled just now or before
    cgroup_version: int
    root: bool
    apt: bool  # packages can be installed by apt-get


def choose(facts: Facts, node_image: str) -> Way:
    """The way to go. Raises ClusterError that names the fix."""
    if facts.engine and facts.node_image:
        return Way.PULLED
    if facts.cgroup_version == 2:
        if not facts.engine:
            raise ClusterError(
                "no Docker engine answers: install Docker (https://docs.docker.com/engine/install/), "
                "start it, and see that `docker info` works for this user"
            )
        raise ClusterError(
            f"the Docker engine neither has the image {node_image} nor can pull it. On a machine with cgroup "
            "v2 it is needed: give the engine a registry mirror, or bring the image over "
            "(`docker save` there, `docker load` here)"
        )
    lacking = "no Docker engine answers" if not facts.engine else f"the engine can't pull {node_image}"
    if not facts.root:
        raise ClusterError(
            f"{lacking}, and without it engine and node image have to be made here, as root: run it as root, "
            "or start an engine that reaches a registry"
        )
    if not facts.apt:
        raise ClusterError(
            f"{lacking}, and without it engine and node image are made from Debian's packages, for which "
            "there is no apt-get here: start an engine that reaches a registry"
        )
    return Way.BUILT
