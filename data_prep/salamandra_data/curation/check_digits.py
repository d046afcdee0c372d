"""Check digits of published standards, over strings of digits whose last one is the check."""

from __future__ import annotations

from collections.abc import Sequence


def weighted(digits: str, weights: Sequence[int]) -> int:
    """The sum of each digit times its weight; what is longer is cut."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def luhn(digits: str) -> bool:
    """Whether the last digit is the Luhn check of those before (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def mod_11_10(digits: str) -> bool:
    """Whether the last digit is the check of ISO/IEC 7064, MOD 11,10."""
    rest = 10
    for digit in digits[:-1]:
        rest = (rest + int(digit)) % 10 or 10
        rest = rest * 2 % 11
    return (11 - rest) % 10 == int(digits[-1])


def ean_13(digits: str) -> bool:
    """Whether the last of 13 digits is the check of an article number (GS1)."""
    return weighted(digits, (1, 3) * 6 + (1,)) % 10 == 0


def verhoeff(digits: str) -> bool:
    """Whether the last digit is the check of Verhoeff's scheme over the dihedral group of order 10."""
    check = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit)
        for _ in range(place % 8):
            value = _PERMUTATION[value]
        check = _product(check, value)
    return check == 0


_PERMUTATION = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _product(left: int, right: int) -> int:
    """In the dihedral group: 0 to 4 are rotations, 5 to 9 reflections."""
    turned = left + right if left < 5 else left - right
    return turned % 5 + (5 if (left < 5) != (right < 5) else 0)
