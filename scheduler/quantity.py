"""Kubernetes quantities ("100m", "1.5Gi", "2e3") as integers.

Decisions must not depend on floating point, and half a byte plus half a byte is one byte, so a
quantity is held as an exact number of billionths: Kubernetes itself keeps nothing finer
(apimachinery/pkg/api/resource/quantity.go rounds up to nano when it parses). Sums and maxima are
taken in billionths and rounded up once, at the end, as `Quantity.Value()` and `MilliValue()` do.
The same few strings come back in every pod of a workload, hence the cache.

One wanted difference: where Kubernetes' int64 overflows (and then reads as 0), amounts stop at
`MAX_VALUE`.
"""

import re
from fractions import Fraction
from functools import lru_cache

# No node and no pod is larger than this (8 PiB, or 9e12 CPUs). The bound keeps sums of any
# number of pods inside an int64 column, whatever a pod's author writes.
MAX_VALUE = 1 << 53

NANOS_PER_UNIT = 10**9
NANOS_PER_MILLI = 10**6

_QUANTITY = re.compile(
    r"([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?[0-9]{1,3}|)"
)
_LONGEST = 256
"""Characters; far more than the API server writes, and far less than Python refuses to read as a number."""
_SUFFIX: dict[str, Fraction] = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", start=1)},
    **{letter + "i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", start=1)},
}


class QuantityError(ValueError):
    """A string that is not a Kubernetes quantity; the message names it."""


@lru_cache(maxsize=1 << 14)
def nanos(text: str) -> int:
    """The quantity in billionths of its unit, exact but for what is finer, which is rounded away from 0.

    Raises QuantityError.
    """
    match = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise QuantityError(f"{text[:_LONGEST]!r} is not a Kubernetes quantity (examples: 500m, 2, 1.5Gi)")
    sign, number, suffix = match.groups()
    scale = _SUFFIX.get(suffix)
    if scale is None:
        scale = Fraction(10) ** int(suffix[1:])
    whole, _, decimals = number.partition(".")
    digits = int(whole + decimals or "0")
    exact = Fraction(digits * NANOS_PER_UNIT, 10 ** len(decimals)) * scale
    magnitude = -(-exact.numerator // exact.denominator)
    return -magnitude if sign == "-" else magnitude


def rounded_up(amount_nanos: int, unit_nanos: int) -> int:
    """Billionths in whole units of `unit_nanos`, away from 0, at most MAX_VALUE of them."""
    whole = min(-(-abs(amount_nanos) // unit_nanos), MAX_VALUE)
    return -whole if amount_nanos < 0 else whole


@lru_cache(maxsize=1 << 14)
def value(text: str) -> int:
    """`Quantity.Value()`: units (bytes, devices), rounded up. Raises QuantityError."""
    return rounded_up(nanos(text), NANOS_PER_UNIT)


@lru_cache(maxsize=1 << 14)
def milli_value(text: str) -> int:
    """`Quantity.MilliValue()`: thousandths, rounded up; used for CPU. Raises QuantityError."""
    return rounded_up(nanos(text), NANOS_PER_MILLI)


def resource_amount(resource: str, text: str) -> int:
    """A resource's amount in its column's unit: millicores for cpu, `Value()` for all others."""
    return milli_value(text) if resource == "cpu" else value(text)
