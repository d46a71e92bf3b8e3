"""The names of formats and splits; nothing is read here."""

SPLITS = ("train", "validation", "test")
#: Formats that are read from the front, and may be compressed.
STREAMED = ("jsonl", "ndjson", "json", "csv", "tsv")
#: Formats that are read here and there.
SEEKABLE = ("parquet", "arrow", "feather", "xlsx", "xls")
COMPRESSIONS = ("gz", "zst")
#: Files in which rows lie beside what they name.
ARCHIVES = ("zip", "tar")
_SHORT = {"tgz": ["tar", "gz"], "tzst": ["tar", "zst"]}


class UnknownFormatError(ValueError):
    """The file's name tells no format that can be read."""


def check_file_name(file_name: str) -> tuple[str, str]:
    """Return (format, compression), such as ("jsonl", "gz"); UnknownFormatError says what can be read."""
    suffixes = file_name.lower().split(".")[1:]
    suffixes[-1:] = _SHORT.get(suffixes[-1], suffixes[-1:]) if suffixes else []
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    form = suffixes[-1] if suffixes else ""
    if form in (*STREAMED, "tar") or (form in (*SEEKABLE, *ARCHIVES) and not compression):
        return form, compression
    given = ", ".join(f".{each}" for each in STREAMED)
    raise UnknownFormatError(
        f"`{file_name}` is of no known format; give {given} (also with .gz or .zst), "
        + ", ".join(f".{each}" for each in SEEKABLE[:-1])
        + f" or .{SEEKABLE[-1]}; or rows with images in .zip or .tar (also with .gz or .zst)"
    )


def is_archive(file_name: str) -> bool:
    """Whether rows lie in it beside what they name."""
    return check_file_name(file_name)[0] in ARCHIVES


#: The row schema of each task type that the field has a name for.
ROWS_OF_TASK = {
    "pretrain": "pretrain",
    **dict.fromkeys(("sft", "gkd", "ppo", "grpo", "rloo"), "sft"),
    **dict.fromkeys(("dpo", "orpo", "cpo", "simpo", "rm"), "preference"),
    "kto": "feedback",
    **dict.fromkeys(("embedding", "reranker"), "retrieval"),
    "sequence-classification": "classification",
    "token-classification": "entities",
    "image-text-classification": "image-text-classification",
    "vqa": "vqa",
    "grounding": "grounding",
    "audio-qa": "vqa",
    **dict.fromkeys(("caption", "ocr"), "caption"),
    "asr": "asr",
}
