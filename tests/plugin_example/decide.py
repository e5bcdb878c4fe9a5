"""Decides for two pods and two nodes, one of them reserved, with the profile of a configuration file.

`python -m tests.plugin_example.decide FILE` prints a line of JSON: pod name → node, or why not. It is
run as a program of its own, since what is installed for it must not be seen by the tests' process.
"""

import json
import sys
from pathlib import Path

from scheduler import config
from scheduler.plugins.profiles import build_profile
from tests.builders import make_engine, make_node, make_pod


def main(file: Path) -> None:
    [profile] = map(build_profile, config.load(file).profiles)
    engine = make_engine(None, profile)
    engine.upsert_node(make_node("open").allocatable(memory="1Gi").obj())
    engine.upsert_node(make_node("reserved").labels({"example.com/reserved-from": "1000"}).obj())
    for name, priority in [("urgent", 2000), ("usual", 0), ("usual-too", 0)]:
        engine.upsert_pod(make_pod(name).req(memory="1Gi").priority(priority).obj())
    decisions = {}
    while (decision := engine.decide()) is not None:
        decisions[decision.pod.pod.metadata.name] = decision.node or decision.message
    print(json.dumps(decisions))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
