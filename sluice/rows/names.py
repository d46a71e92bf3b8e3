"""The names of formats and splits; nothing is read here."""

SPLITS = ("train", "validation", "test")
#: Formats that are read from the front, and may be compressed.
STREAMED = ("jsonl", "ndjson", "json", "csv", "tsv")
#: Formats that are read here and there.
SEEKABLE = ("parquet", "arrow", "feather", "xlsx", "xls")
COMPRESSIONS = ("gz", "zst")


class UnknownFormatError(ValueError):
    """The file's name tells no format that can be read."""


def check_file_name(file_name: str) -> tuple[str, str]:
    """Return (format, compression), such as ("jsonl", "gz"); UnknownFormatError says what can be read."""
    suffixes = file_name.lower().split(".")[1:]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    form = suffixes[-1] if suffixes else ""
    if form in STREAMED or (form in SEEKABLE and not compression):
        return form, compression
    given = ", ".join(f".{each}" for each in STREAMED)
    raise UnknownFormatError(
        f"`{file_name}` is of no known format; give {given} (also with .gz or .zst), "
        + ", ".join(f".{each}" for each in SEEKABLE[:-1])
        + f" or .{SEEKABLE[-1]}"
    )


#: The row schema of each task type that the field has a name for.
ROWS_OF_TASK = {
    "pretrain": "pretrain",
    **dict.fromkeys(("sft", "gkd"), "sft"),
    **dict.fromkeys(("dpo", "orpo", "cpo", "simpo", "rm"), "preference"),
    "kto": "feedback",
    **dict.fromkeys(("embedding", "reranker"), "retrieval"),
    "sequence-classification": "classification",
}
