"""Expected values are those of apimachinery's resource.Quantity (1.37): Value() and MilliValue()."""

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scheduler.quantity import MAX_VALUE, QuantityError, milli_value, nanos, resource_amount, value


@pytest.mark.parametrize(
    ("text", "units", "millis"),
    [
        ("0", 0, 0),
        ("1", 1, 1000),
        ("100m", 1, 100),
        ("1500m", 2, 1500),
        ("1.5", 2, 1500),
        ("1.0005", 2, 1001),
        ("500Mi", 524288000, 524288000000),
        ("1.5Gi", 1610612736, 1610612736000),
        ("0.3Ki", 308, 307200),
        ("1k", 1000, 1000000),
        ("3M", 3000000, 3000000000),
        ("2G", 2 * 10**9, 2 * 10**12),
        ("2T", 2 * 10**12, 2 * 10**15),
        ("1Ti", 1 << 40, 1000 << 40),
        ("5P", 5 * 10**15, MAX_VALUE),
        ("1u", 1, 1),
        ("1n", 1, 1),
        ("1234567u", 2, 1235),
        ("999999999n", 1, 1000),
    ],
)
def test_values_are_rounded_up(text: str, units: int, millis: int) -> None:
    assert value(text) == units
    assert milli_value(text) == millis
    assert resource_amount("memory", text) == units
    assert resource_amount("cpu", text) == millis


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("1e3", 1000),
        ("1E3", 1000),
        ("1e+3", 1000),
        ("12e6", 12000000),
        ("1e-3", 1),
        ("2500e-3", 3),
        ("1E", 10**18),  # a suffix, not an exponent; above the bound
        ("1e0", 1),
        ("1.5e1", 15),
        ("0e999", 0),
    ],
)
def test_exponents(text: str, units: int) -> None:
    assert value(text) == min(units, MAX_VALUE)


@pytest.mark.parametrize(
    ("text", "units"),
    [("+1", 1), ("007", 7), ("1.", 1), (".5Ki", 512), ("1.Ki", 1024), ("0.0", 0), ("-0", 0), ("00.50", 1)],
)
def test_odd_forms(text: str, units: int) -> None:
    assert value(text) == units


@pytest.mark.parametrize(
    ("text", "units", "millis"), [("-1", -1, -1000), ("-1.5", -2, -1500), ("-100m", -1, -100)]
)
def test_negative_amounts_are_rounded_away_from_zero(text: str, units: int, millis: int) -> None:
    # No object that the API server accepts has one.
    assert (value(text), milli_value(text)) == (units, millis)


@pytest.mark.parametrize(
    "text", ["9P", "9Pi", "1Ei", "16Ei", "1e30", "1e999", "9" * 40, "99999999999999999999Ki"]
)
def test_no_amount_is_above_the_bound(text: str) -> None:
    assert milli_value(text) == MAX_VALUE
    assert value(text) <= MAX_VALUE
    assert value("-" + text) == -value(text)


def test_what_is_finer_than_a_billionth_is_rounded_up_to_one() -> None:
    assert nanos("0.1n") == nanos("1e-30") == 1
    assert nanos("1.0000000001") == 10**9 + 1
    assert nanos("-0.1n") == -1


NO_QUANTITIES = r"""
abc 1Gb 1KI 1ki 1mi 1i 1e 1e1.5 1e+ --1 +-1 1.2.3 1,5 0x10 1_000 nan 1ee3 1Eie3 1mm 1e1000 ∞
"""
WITHOUT_DIGITS = "Gi . + -"
"""Kubernetes takes these for 0, and the API server writes 0 back, so they never come from there."""


@pytest.mark.parametrize(
    "text", ["", " ", "1 ", " 1", "1 Gi", "1\n", *NO_QUANTITIES.split(), *WITHOUT_DIGITS.split()]
)
def test_what_is_no_quantity_is_named(text: str) -> None:
    with pytest.raises(QuantityError) as caught:
        value(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("digit", ["\u0661", "\uff11"])
def test_digits_of_other_scripts_are_no_digits(digit: str) -> None:
    with pytest.raises(QuantityError):
        value(digit)


@given(st.integers(0, 10**15), st.sampled_from(["n", "u", "m", "", "k", "M", "Ki", "Mi", "Gi"]))
@example(1, "n")
def test_whole_numbers_of_any_suffix_are_exact(number: int, suffix: str) -> None:
    scale = {
        **{"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1)},
        **{"k": Fraction(1000), "M": Fraction(10**6)},
        **{"Ki": Fraction(1 << 10), "Mi": Fraction(1 << 20), "Gi": Fraction(1 << 30)},
    }[suffix]
    assert nanos(f"{number}{suffix}") == number * scale * 10**9


@given(st.decimals(min_value=0, max_value=10**9, places=9, allow_nan=False))
def test_decimals_and_exponents_say_the_same(number: object) -> None:
    text = f"{number:f}"
    assert nanos(text) == nanos(f"{text}e0") == Fraction(text) * 10**9


def test_endless_digits_are_no_quantity() -> None:
    with pytest.raises(QuantityError, match="not a Kubernetes quantity"):
        value("1" * 5000)
