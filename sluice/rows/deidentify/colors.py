"""Color profiles of pictures with nothing in them but numbers; which picture has one is not known here."""

from __future__ import annotations

import struct

#: What of a color profile makes colors (ICC.1:2022, 8.4 and 8.6); the rest of it is names and words.
_RGB_TAGS = (b"wtpt", b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC")
_PARAMETERS = (1, 3, 4, 5, 7)
#: Bytes of a profile that are unpacked at most.
MAX_PROFILE = 1 << 20


def small(said: bytes, form: str, most: int) -> bool:
    """Whether they are numbers as colors have them, and not letters."""
    return all(abs(number) <= most for number in struct.unpack(form, said))


def color_profile(icc: bytes) -> bytes:
    """A color profile of three primaries or of gray with nothing in it but numbers; empty for any other."""
    space, major = icc[16:20], icc[8:9]
    if icc[36:40] != b"acsp" or space not in (b"RGB ", b"GRAY") or icc[20:24] != b"XYZ " or major not in (b"\2", b"\4"):
        return b""
    tags = {}
    for at in range(132, min(132 + 12 * int.from_bytes(icc[128:132], "big"), 132 + 12 * 100, len(icc) - 11), 12):
        name, start, size = struct.unpack(">4sLL", icc[at : at + 12])
        if name in (*_RGB_TAGS, b"kTRC", b"chad") and _numbers(icc[start : start + size]):
            tags[name] = icc[start : start + size]
    if not tags.keys() >= set(_RGB_TAGS if space == b"RGB " else (b"wtpt", b"kTRC")):
        return b""
    start, table, said = 132 + 12 * len(tags), b"", b""
    for name in sorted(tags):
        table += struct.pack(">4sLL", name, start + len(said), len(tags[name]))
        said += tags[name] + bytes(-len(tags[name]) % 4)
    light = struct.pack(">3l", 0xF6D6, 0x10000, 0xD32D)  # D50
    head = struct.pack(">L4x4s4s4s4s12x4s28x", start + len(said), major + b"\0\0\0", b"mntr", space, b"XYZ ", b"acsp")
    return (head + light).ljust(128, b"\0") + struct.pack(">L", len(tags)) + table + said


def _numbers(said: bytes) -> bool:
    """Whether part of a profile is a color, a matrix or a curve, whole and plausible (ICC.1:2022, 10)."""
    kind, size = said[:4], len(said)
    if said[4:8] != bytes(4):
        return False
    if kind in (b"XYZ ", b"sf32"):
        return size == (20 if kind == b"XYZ " else 44) and small(said[8:], f">{(size - 8) // 4}l", 4 << 16)
    if kind == b"para" and size >= 12 and said[8] == 0 and said[9] < 5 and said[10:12] == b"\0\0":
        return size == 12 + 4 * _PARAMETERS[said[9]] and small(said[12:], f">{(size - 12) // 4}l", 16 << 16)
    if kind == b"curv" and size >= 12:
        count = int.from_bytes(said[8:12], "big")
        curve = struct.unpack(f">{(size - 12) // 2}H", said[12 : size - size % 2])
        return count <= 4096 and size == 12 + 2 * count and list(curve) == sorted(curve)
    return False
