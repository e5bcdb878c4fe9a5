"""Random resource requests, in every form the API server lets through.

A request is made as an exact number first and written as text second, because validation compares
amounts: pod-level requests may not be less than what the containers add up to, a limit not less than
its request, huge pages come whole, extended resources are integers (pkg/apis/core/validation).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from fractions import Fraction
from random import Random
from typing import Any

Json = dict[str, Any]

UNIT = 10**9
"""Amounts are whole billionths, the finest that Kubernetes keeps."""
MILLI = UNIT // 1000
KIB, MIB, GIB = 1024 * UNIT, 1024**2 * UNIT, 1024**3 * UNIT
EXTENDED = ("example.com/gpu", "example.com/fpga", "vendor.example/nic-1")
HUGE_PAGES = {"hugepages-2Mi": 2 * MIB, "hugepages-1Gi": GIB}
RESOURCES = ("cpu", "memory", "ephemeral-storage", *EXTENDED, *HUGE_PAGES)

Amounts = dict[str, int]
"""Resource name to billionths."""

_CANONICAL = {"Gi": GIB, "Mi": MIB, "Ki": KIB, "": UNIT, "m": MILLI, "u": 1000, "n": 1}
_SUFFIXES = {**_CANONICAL, "Ti": 1024 * GIB, "k": 1000 * UNIT, "M": 10**6 * UNIT, "G": 10**9 * UNIT}


def write(rng: Random, amount: int) -> str:
    """One of the ways to write an amount; mostly the API server's own."""
    return write_plainly(amount) if rng.random() < 0.75 else rng.choice(_FORMS)(rng, amount)


def write_plainly(amount: int) -> str:
    """With the largest suffix that leaves a whole number."""
    suffix, unit = next((s, u) for s, u in _CANONICAL.items() if amount % u == 0)
    return f"{amount // unit}{suffix}"


def _decimal(number: Fraction) -> str:
    """In decimal digits; they end, since 2 and 5 are all that divides the denominators here."""
    places = 0
    while number.denominator != 1:
        number *= 10
        places += 1
    digits = str(number.numerator).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}" if places else digits


def _other_suffix(rng: Random, amount: int) -> str:
    suffix, unit = rng.choice([(s, u) for s, u in _SUFFIXES.items() if amount % u == 0])
    return f"{amount // unit}{suffix}"


def _with_point(rng: Random, amount: int) -> str:
    suffix = rng.choice(["", "k", "M", "G", "Ki", "Mi", "Gi", "Ti", "m"])
    text = _decimal(Fraction(amount, _SUFFIXES[suffix]))
    if text.startswith("0.") and rng.random() < 0.3:
        text = text[1:]
    elif "." not in text and rng.random() < 0.3:
        text += "."
    return f"{text}{suffix}"


def _with_exponent(rng: Random, amount: int) -> str:
    power = rng.choice([-9, -6, -3, -1, 1, 2, 3, 6, 9])
    text = _decimal(Fraction(amount) / UNIT / Fraction(10) ** power)
    return f"{text}{rng.choice('eE')}{rng.choice(['', '+']) if power > 0 else ''}{power}"


def _padded(rng: Random, amount: int) -> str:
    return f"{rng.choice(['+', '0', '000'])}{_other_suffix(rng, amount)}"


_FORMS: tuple[Callable[[Random, int], str], ...] = (_other_suffix, _with_point, _with_exponent, _padded)


def amount_of(rng: Random, resource: str, *, largest: int) -> int:
    """A plausible or a nasty amount of a resource, at most about `largest`."""
    if rng.random() < 0.06:
        return 0
    if resource in HUGE_PAGES:
        page = HUGE_PAGES[resource]
        return page * rng.randint(1, max(1, largest // page))
    if resource in EXTENDED:
        return UNIT * rng.randint(1, max(1, largest // UNIT))
    if rng.random() < 0.12:  # what has to be rounded, once and only after adding up
        unit = MILLI if resource == "cpu" else UNIT
        return unit * rng.choice([500, 250, 1, 1400, 12345]) // 1000
    grain = 10 * MILLI if resource == "cpu" else rng.choice([UNIT, KIB, MIB, 10**6 * UNIT])
    return grain * rng.randint(1, max(1, largest // grain))


def requests(rng: Random, largest: Amounts, *, share: float = 1.0) -> Amounts:
    """Amounts of some of the resources that `largest` names."""
    picked: Amounts = {}
    for resource, most in largest.items():
        chance = 0.7 if resource in ("cpu", "memory") else 0.15
        if rng.random() < chance * share:
            picked[resource] = amount_of(rng, resource, largest=most)
    if HUGE_PAGES.keys() & picked.keys() and not {"cpu", "memory"} & picked.keys():
        picked["memory"] = amount_of(rng, "memory", largest=largest["memory"])
    return picked


def requirements(rng: Random, amounts: Amounts) -> Json:
    """`resources` of a container or pod: requests, and the limits that go with them.

    Some limits stand without a request, which the API server then takes for the request.
    """
    requested, limits = {}, {}
    for resource, amount in amounts.items():
        text = write(rng, amount)
        if resource in EXTENDED or resource in HUGE_PAGES:
            limits[resource] = text
            if rng.random() < 0.7:
                requested[resource] = write(rng, amount)
        elif rng.random() < 0.15:
            limits[resource] = text
        else:
            requested[resource] = text
            if rng.random() < 0.2:
                limits[resource] = write(rng, amount * rng.randint(1, 3))
    out: Json = {}
    if requested or rng.random() < 0.1:
        out["requests"] = requested
    if limits:
        out["limits"] = limits
    return out


def pod_level(rng: Random, containers: Iterable[Amounts], largest: Amounts) -> Json:
    """`spec.resources`, with requests not below what the containers can ever take together.

    Written plainly, as the API server stores them: `PodRequests` adds the overhead into the pod's own
    quantity if that is not a simple int64 (`applyPodLevelResources` takes it without copying), and
    each later call adds it again. No amount that the API server writes back is affected but huge ones.
    """
    total: defaultdict[str, int] = defaultdict(int)
    for amounts in containers:
        for resource, amount in amounts.items():
            total[resource] += -(-amount // MILLI) * MILLI  # as it is stored
    requested, limits = {}, {}
    for resource in ("cpu", "memory", *HUGE_PAGES):
        if resource not in largest or rng.random() > (0.6 if resource in ("cpu", "memory") else 0.1):
            continue
        amount = total[resource]
        if rng.random() < 0.7:
            amount += amount_of(rng, resource, largest=largest[resource])
        if resource in HUGE_PAGES:
            amount = -(-amount // HUGE_PAGES[resource]) * HUGE_PAGES[resource]
            limits[resource] = write(rng, amount)
        requested[resource] = write_plainly(amount)
    if HUGE_PAGES.keys() & requested.keys() and not {"cpu", "memory"} & requested.keys():
        requested["memory"] = write_plainly(total["memory"] + MIB)
    return {"requests": requested, **({"limits": limits} if limits else {})}


def resize_status(rng: Random, spec: Json, largest: Amounts) -> Json:
    """A `status` as kubelets leave it behind while they resize a pod, or did, or refused to."""

    def amounts(like: Json) -> dict[str, str]:
        if rng.random() < 0.4:
            return dict(like.get("resources", {}).get("requests", {}))
        return {name: write(rng, amount) for name, amount in requests(rng, largest).items()}

    def states(containers: Iterable[Json]) -> list[Json]:
        found = []
        for container in containers:
            if rng.random() < 0.15:
                continue
            state: Json = {"name": container["name"]}
            if rng.random() < 0.7:
                state["allocatedResources"] = amounts(container)
            if rng.random() < 0.7:
                state["resources"] = {"requests": amounts(container)} if rng.random() < 0.85 else {}
            found.append(state)
        rng.shuffle(found)
        return found

    status: Json = {
        "containerStatuses": states(spec["containers"]),
        "initContainerStatuses": states(spec.get("initContainers", [])),
    }
    conditions = [{"type": "Ready", "status": "True"}] if rng.random() < 0.5 else []
    if rng.random() < 0.6:
        reason = rng.choice(["Infeasible", "Infeasible", "Deferred", "Unknown"])
        conditions.append({"type": "PodResizePending", "status": "True", "reason": reason})
    if rng.random() < 0.2:
        conditions.append({"type": "PodResizeInProgress", "status": "True"})
    if conditions:
        status["conditions"] = conditions
    if rng.random() < 0.35:
        status["resources"] = {"requests": amounts(spec)} if rng.random() < 0.85 else {}
    if rng.random() < 0.35:
        status["allocatedResources"] = amounts(spec)
    return status


def pod_spec(rng: Random, largest: Amounts, *, simple: bool = False) -> Json:
    """Containers, and all that has a say in what a pod asks for."""
    counted: list[Amounts] = []

    def container(name: str) -> Json:
        amounts = requests(rng, largest)
        counted.append(amounts)
        return {"name": name, "image": "example.com/app", "resources": requirements(rng, amounts)}

    regular = 1 if simple or rng.random() < 0.5 else rng.randint(2, 4)
    spec: Json = {"containers": [container(f"c{i}") for i in range(regular)]}
    if not simple and rng.random() < 0.5:
        spec["initContainers"] = [container(f"i{i}") for i in range(rng.randint(1, 4))]
        for init in spec["initContainers"]:
            if rng.random() < 0.5:
                init["restartPolicy"] = "Always"
    if not simple and rng.random() < 0.3:
        spec["resources"] = pod_level(rng, counted, largest)
    if rng.random() < (0.05 if simple else 0.25):
        spec["overhead"] = {
            name: write(rng, amount_of(rng, name, largest=largest[name]))
            for name in ("cpu", "memory")
            if rng.random() < 0.8
        }
    return spec
