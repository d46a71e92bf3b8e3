"""Check digits of the numbers people and organizations go by; where a number stood in a text is not known here."""

from __future__ import annotations

from datetime import date

_ID_CHECKS = "10X98765432"
_CREDIT_ALPHABET = {letter: value for value, letter in enumerate("0123456789ABCDEFGHJKLMNPQRTUWXY")}
_CREDIT_WEIGHTS = [pow(3, place, 31) for place in range(17)]
_ORGANIZATION_WEIGHTS = (3, 7, 9, 10, 5, 8, 4, 2)
_ORGANIZATION_CHECKS = "0X987654321"
#: The first two digits of a division code (GB/T 2260); 81 to 83 stand on residence permits, 9 on those of foreigners.
_PROVINCES = frozenset(
    str(code)
    for codes in ((11, 16), (21, 24), (31, 38), (41, 47), (50, 55), (61, 66), (71, 72), (81, 84))
    for code in range(*codes)
)


def luhn(digits: str) -> bool:
    """Whether ``digits`` end in their check digit (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def id_check(body: str) -> str:
    """The check character of the 17 digits of a resident identity number (GB 11643-1999, ISO 7064 MOD 11-2)."""
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(body))
    return _ID_CHECKS[total % 11]


def resident_id(number: str) -> bool:
    """Whether 18 characters are a resident identity number: division, date of birth and check character."""
    if number[:2] not in _PROVINCES and number[0] != "9":
        return False
    return calendar_date(number[6:14]) and id_check(number[:17]) == number[17].upper()


def first_resident_id(number: str) -> bool:
    """Whether 15 digits may be a first-generation identity number (GB 11643-1989), which has no check digit."""
    return number[:2] in _PROVINCES and calendar_date("19" + number[6:12])


def calendar_date(digits: str) -> bool:
    """Whether YYYYMMDD is a day of the 20th or 21st century."""
    if digits[:2] not in ("19", "20"):
        return False
    try:
        date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return False
    return True


def credit_check(body: str) -> str:
    """The last character of a unified social credit code by its first 17 (GB 32100-2015, 5.2)."""
    total = sum(_CREDIT_ALPHABET[letter] * weight for letter, weight in zip(body, _CREDIT_WEIGHTS, strict=True))
    return "0123456789ABCDEFGHJKLMNPQRTUWXY"[-total % 31]


def organization_check(body: str) -> str:
    """The last character of an organization code by its first 8 (GB 11714-1997)."""
    total = sum(int(letter, 36) * weight for letter, weight in zip(body, _ORGANIZATION_WEIGHTS, strict=True))
    return _ORGANIZATION_CHECKS[total % 11]


def social_credit_code(code: str) -> bool:
    """Whether 18 characters of its alphabet are a unified social credit code, with both of its check characters."""
    return organization_check(code[8:16]) == code[16] and credit_check(code[:17]) == code[17]
