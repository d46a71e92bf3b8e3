"""Numbers that carry their own proof: identity cards, credit codes, bank cards, phones, addresses of the network.

A number whose check digit, date or range is wrong is no finding. Sources: GB 11643-1999 and GB 11643-1989 (identity
numbers), GB 32100-2015 (credit codes), ISO/IEC 7812-1 (card numbers; ranges as the card networks publish them),
ITU-T E.164 with the national plans that the `phonenumbers` library carries.
"""

from __future__ import annotations

import ipaddress
import re

from sluice.rows.deidentify import checksums
from sluice.rows.deidentify.recognizers.rules import GAP, Rule, Rules, after_cue, bare, digits, pattern

#: The first digit of a number, which does not begin inside a word, a longer number, a decimal or a UUID. (A pattern
#: that begins with what it consumes is searched several times as fast as one that begins by looking back.)
_FIRST = r"\d(?<![0-9A-Za-z]\d)(?<![0-9A-Za-z][.\-]\d)"
_FIRST_OF_ID = rf"(?:{_FIRST}|\d(?<=ID\d)|\d(?<=[Nn]o\d))"
#: That of a mobile number, which may follow its country code or a word closely.
_FIRST_OF_MOBILE = (
    r"1(?:(?<![0-9A-Za-z]1)(?<![0-9A-Za-z][.\-]1)|(?<=(?<![0-9A-Za-z])861)|(?<=(?<![0-9A-Za-z])00861)"
    r"|(?<=(?<![0-9A-Za-z])(?<![0-9A-Za-z][.\-])86[.\-]1)|(?<=(?<![0-9A-Za-z])(?<![0-9A-Za-z][.\-])0086[.\-]1)"
    r"|(?<=[Tt]el1)|(?<=TEL1)|(?<=[Pp]hone1)|(?<=[Mm]obile1))"
)
_END = r"(?![0-9A-Za-z]|-[0-9A-Za-z]|\.[0-9])"
_GAP_OR_DOT = f"[.．{GAP[1:]}"
_CARD_CUE = re.compile(r"银行|卡号|账号|帐号|账户|帐户|信用卡|储蓄卡|借记卡|(?i:card|account|acct|visa|maestro)")
_ID_CUE = re.compile(r"身份证|证件号|(?i:id (?:card|no|number))")
_VERSION_CUE = re.compile(r"版本号?[: ]?$|(?i:version|release|build)[: ]?$|[<>=~!]=[ ]?$")
#: Issuer prefixes and lengths that are taken without a cue. 9558 and 9559 are cards of ICBC and ABC before UnionPay.
_ISSUERS: tuple[tuple[range, tuple[int, ...]], ...] = (
    (range(6200, 6300), (16, 17, 18, 19)),  # UnionPay
    (range(8100, 8172), (16, 17, 18, 19)),  # UnionPay
    (range(9558, 9560), (16, 17, 18, 19)),
    (range(4000, 5000), (16, 19)),  # Visa
    (range(5100, 5600), (16,)),  # Mastercard
    (range(2221, 2721), (16,)),  # Mastercard
    (range(3400, 3500), (15,)),  # American Express
    (range(3700, 3800), (15,)),  # American Express
    (range(3528, 3590), (16, 17, 18, 19)),  # JCB
    (range(6011, 6012), (16, 17, 18, 19)),  # Discover
    (range(6440, 6600), (16, 17, 18, 19)),  # Discover
    (range(2200, 2205), (16, 17, 18, 19)),  # Mir
)
#: Shorter ones, and issuers whose range holds barcodes and order numbers too, need a word before them.
_CUED_ISSUERS = re.compile(r"3[0689]|4|5[0-8]|6|9")


def _resident_id(match: re.Match[str]) -> bool:
    return checksums.resident_id(bare(match))


def _first_resident_id(match: re.Match[str]) -> bool:
    return checksums.first_resident_id(bare(match)) and after_cue(_ID_CUE, 12)(match)


def _social_credit_code(match: re.Match[str]) -> bool:
    return checksums.social_credit_code(match[0])


def _bank_card(match: re.Match[str]) -> bool:
    number = bare(match)
    if not checksums.luhn(number) or len(set(number)) == 1:
        return False
    if any(int(number[:4]) in prefixes and len(number) in lengths for prefixes, lengths in _ISSUERS):
        return True
    return _CUED_ISSUERS.match(number) is not None and after_cue(_CARD_CUE, 24)(match)


def _valid_phone(match: re.Match[str]) -> bool:
    import phonenumbers

    try:
        number = phonenumbers.parse(match[0], "CN")
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_valid_number(number)


def _ipv4(match: re.Match[str]) -> bool:
    return _address(match[0]) and not after_cue(_VERSION_CUE, 10)(match)


def _address(text: str) -> bool:
    """Whether it is an address of some machine; the one of every machine tells nobody."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def _ipv6(match: re.Match[str]) -> bool:
    groups = [group for group in match[0].split(":") if group]  # fewer are slices and scopes of programs
    return len(groups) >= 3 and any(letter.isdigit() for letter in match[0]) and _address(match[0])


RULES = (
    Rule(
        "CN_ID_CARD",
        digits(17),
        pattern(rf"{_FIRST_OF_ID}\d{{5}}[ -]?\d{{4}}[ -]?\d{{4}}[ -]?\d{{3}}[ -]?[\dXx]{_END}"),
        _resident_id,
    ),
    Rule("CN_ID_CARD", digits(15), pattern(rf"{_FIRST}\d{{5}}[ -]?\d{{6}}[ -]?\d{{3}}{_END}"), _first_resident_id),
    Rule(
        "CN_SOCIAL_CREDIT_CODE",
        "[0-9A-Z]{2}[0-9]{6}[0-9A-Z]{10}",
        pattern(
            rf"[0-9A-HJ-NPQRTUWXY](?<![0-9A-Za-z].)(?<![0-9A-Za-z][.\-].)[0-9A-HJ-NPQRTUWXY]\d{{6}}"
            rf"[0-9A-HJ-NPQRTUWXY]{{10}}{_END}"
        ),
        _social_credit_code,
    ),
    Rule(
        "BANK_CARD",
        digits(12),
        pattern(
            rf"{_FIRST}(?:\d{{11,18}}|\d{{3}}(?:[ -]\d{{4}}){{2,3}}(?:[ -]\d{{1,4}})?|\d{{3}}[ -]\d{{6}}[ -]\d{{4,5}}"
            rf"|\d{{5}}[ -]\d{{10,13}}){_END}"
        ),
        _bank_card,
    ),
    Rule(
        "CN_MOBILE",
        f"1{_GAP_OR_DOT}{{0,2}}[3-9](?:{_GAP_OR_DOT}{{0,2}}[0-9]){{9}}",
        pattern(
            rf"{_FIRST_OF_MOBILE}[3-9]\d(?:[ -]?\d{{4}}[ -]?\d{{4}}|[ -]\d{{3}}[ -]\d{{5}}|\.\d{{4}}\.\d{{4}}){_END}"
        ),
        _valid_phone,
    ),
    Rule(
        "CN_PHONE",
        f"0[0-9]{{2,3}}{GAP}{{1,2}}[0-9]{{3,4}}{GAP}?[0-9]{{4}}",
        pattern(
            r"[(0](?<![0-9A-Za-z].)(?<![0-9A-Za-z][.\-].)(?:(?<=\()0\d{2,3}\) ?|(?<=0)\d{2,3}[ -])\d{3,4}[ -]?\d{4}"
            r"(?:-\d{1,5})?(?![0-9A-Za-z])"
        ),
        _valid_phone,
    ),
    Rule(
        "PHONE",
        "[+＋][0-9]",
        pattern(r"\+(?<![0-9A-Za-z]\+)(?!86[ -]?1[3-9])[1-9][0-9 ().-]{5,20}\d(?![0-9A-Za-z])"),
        _valid_phone,
    ),
    Rule(
        "EMAIL",
        "[@＠]",
        pattern(
            r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}@"
            r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
        ),
    ),
    Rule(
        "IP_ADDRESS",
        "[0-9]{1,3}(?:[.．][0-9]{1,3}){3}",
        pattern(r"\d(?<![0-9A-Za-z.]\d)(?<![0-9A-Za-z]-\d)\d{0,2}\.(?:\d{1,3}\.){2}\d{1,3}(?![0-9A-Za-z]|\.[0-9])"),
        _ipv4,
    ),
    Rule(
        "IP_ADDRESS",
        "[:：]{2}[0-9A-Fa-f]|(?:[0-9A-Fa-f]{1,4}[:：]){4}",
        pattern(r"(?<![0-9A-Za-z:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}(?![0-9A-Za-z:.])"),
        _ipv6,
    ),
)


def numbers() -> Rules:
    """The recognizer of numbers that prove themselves."""
    return Rules(RULES)
