"""One pass over canonical rows to the numbers that describe them; it knows columns, not tasks, and keeps no row."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from sluice.rows.profile.figures import Answers, Count, Field, Images, Labels, Part, Statistics
from sluice.rows.profile.languages import languages
from sluice.rows.profile.sketches import LogHistogram, Sample, Tally
from sluice.rows.profile.texts import Texts, answers_of, assets_of, frame_of, joined, labels_of, texts_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LANGUAGE_SAMPLE = 1000
TOP_LABELS = 100
#: A label that is longer is cut: a name is short, and what is long is content.
LABEL_CHARACTERS = 64
_SAMPLE_CHARACTERS = 1000
_TOKENIZED_AT_ONCE = 1000
_WIDTHS = ("width", "widths", "image_width", "image_widths")
_HEIGHTS = ("height", "heights", "image_height", "image_heights")


class TokenizerError(ValueError):
    """The file given as a tokenizer is none, or the library that reads it is not installed."""


def statistics(
    batches: Iterable[pa.RecordBatch | pa.Table],
    *,
    tokenizer: Path | None = None,
    language_sample: int = LANGUAGE_SAMPLE,
    seed: int = 0,
) -> Statistics:
    """Describe rows that come as batches of any size, in one pass and in memory that does not grow with them.

    `tokenizer` is a `tokenizer.json`; TokenizerError when it cannot be read. Lengths are within 0.5 % (see
    `LogHistogram`), languages are those of a sample of so many rows, drawn by `seed`; all else is counted.
    """
    whole = StatisticsPass(tokenizer=tokenizer, language_sample=language_sample, seed=seed)
    for batch in batches:
        whole.add(batch)
    return whole.result()


class _FieldTotals:
    def __init__(self) -> None:
        self.characters, self.items, self.empty = LogHistogram(), LogHistogram(), 0

    def add(self, found: Texts) -> None:
        texts = found.table["text"]
        self.characters.add(_integers(texts.str.len_chars()))
        self.empty += int((texts.str.strip_chars() == "").sum())
        if found.several:
            self.items.add(_integers(found.table.group_by("row").len()["len"]))

    def result(self) -> Field:
        return Field(self.characters.lengths(), self.empty, self.items.lengths())


class StatisticsPass:
    """The same for who reads the batches itself: add each, then ask for the result."""

    def __init__(
        self,
        *,
        tokenizer: Path | None = None,
        language_sample: int = LANGUAGE_SAMPLE,
        image_sizes: Mapping[str, tuple[int, int]] | None = None,
        seed: int = 0,
    ) -> None:
        """``image_sizes`` are width and height in pixels by what rows name an image; else rows must tell them."""
        self._image_sizes = _sizes_table(image_sizes) if image_sizes else None
        self._tokenizer = _tokenizer(tokenizer) if tokenizer else None
        self._splits: dict[str, Part] = {}
        self._fields: dict[str, _FieldTotals] = {}
        self._characters, self._tokens = LogHistogram(), LogHistogram()
        self._roles, self._labels, self._answers = Tally(pl.String), Tally(pl.String), Tally(pl.UInt64)
        self._empty_answers = 0
        self._sample = Sample(language_sample, _SAMPLE_CHARACTERS, seed)
        self._assets, self._width, self._height, self._pixels = (LogHistogram() for _ in range(4))

    def add(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Take a batch of rows in."""
        frame = frame_of(batch)
        if not frame.height:
            return
        found = texts_of(frame)
        self._add_sizes(frame, found)
        self._add_said(frame.height, found)
        labels = labels_of(frame)
        if labels is not None:
            self._labels.add(labels.drop_nulls().explode().str.head(LABEL_CHARACTERS))
        self._add_images(frame)

    def result(self) -> Statistics:
        """What all batches so far are like."""
        parts = self._splits.values()
        return Statistics(
            rows=sum(part.rows for part in parts),
            text_bytes=sum(part.text_bytes for part in parts),
            splits=dict(self._splits),
            characters=self._characters.lengths(),
            tokens=self._tokens.lengths(),
            fields={name: totals.result() for name, totals in self._fields.items()},
            roles={str(role): messages for role, messages in self._roles.top(TOP_LABELS)},
            labels=self._label_balance(),
            answers=self._answer_counts(),
            languages=languages(self._sample.texts()),
            images=self._images(),
        )

    def _add_sizes(self, frame: pl.DataFrame, found: list[Texts]) -> None:
        characters = np.zeros(frame.height, np.int64)
        sizes = np.zeros(frame.height, np.int64)
        for each in found:
            rows, texts = each.table["row"].to_numpy(), each.table["text"]
            characters += _per_row(rows, texts.str.len_chars(), frame.height)
            sizes += _per_row(rows, texts.str.len_bytes(), frame.height)
            self._fields.setdefault(each.field, _FieldTotals()).add(each)
            self._roles.add(each.table["role"].str.head(LABEL_CHARACTERS))
        self._characters.add(characters)
        splits = frame["split"].cast(pl.String) if "split" in frame.columns else pl.repeat("", frame.height, eager=True)
        by_split = pl.DataFrame({"split": splits.fill_null(""), "bytes": sizes}).group_by("split", maintain_order=True)
        for name, rows_there, bytes_there in by_split.agg(pl.len(), pl.col("bytes").sum()).iter_rows():
            part = self._splits.setdefault(name, Part())
            part.rows += rows_there
            part.text_bytes += bytes_there

    def _add_said(self, rows: int, found: list[Texts]) -> None:
        said = [each.table.filter(pl.col("role").fill_null("") != "system") for each in found]
        self._sample.add(joined(said, rows))
        answers = answers_of(found)
        if answers is not None:
            stripped = answers["text"].str.strip_chars()
            self._empty_answers += int((stripped == "").sum())
            self._answers.add(stripped.hash())
        if self._tokenizer:
            counts = np.zeros(rows, np.int64)
            for each in found:
                counts += _per_row(each.table["row"].to_numpy(), _tokens(self._tokenizer, each.table["text"]), rows)
            self._tokens.add(counts)

    def _add_images(self, frame: pl.DataFrame) -> None:
        for each in assets_of(frame):
            self._assets.add(np.bincount(each.table["row"].to_numpy(), minlength=frame.height))
        sizes = _image_sizes(frame) if self._image_sizes is None else _named_sizes(frame, self._image_sizes)
        if sizes is not None:
            widths, heights = (_integers(sizes[name]) for name in ("width", "height"))
            self._width.add(widths)
            self._height.add(heights)
            self._pixels.add(widths * heights)

    def _label_balance(self) -> Labels | None:
        if not self._labels.total:
            return None
        top = [Count(str(value), rows) for value, rows in self._labels.top(TOP_LABELS)]
        total = self._labels.total
        return Labels(total, self._labels.distinct, top, total - sum(each.rows for each in top), self._labels.error)

    def _answer_counts(self) -> Answers | None:
        answers = self._answers
        if not answers.total:
            return None
        most = max((rows for _, rows in answers.top(1)), default=1)
        return Answers(answers.total, self._empty_answers, most, answers.distinct, answers.error)

    def _images(self) -> Images | None:
        found = [each.lengths() for each in (self._assets, self._width, self._height, self._pixels)]
        return Images(*found) if any(found) else None


def _tokenizer(path: Path) -> "Tokenizer":
    try:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(path))
    except ModuleNotFoundError as error:
        raise TokenizerError("counting tokens needs the library `tokenizers`; install `sluice[cpu]`") from error
    except Exception as error:  # the library raises nothing narrower
        raise TokenizerError(f"`{path.name}` cannot be read as a tokenizer; give a `tokenizer.json`") from error


def _tokens(tokenizer: "Tokenizer", texts: pl.Series) -> pl.Series:
    counts = [
        len(encoding)
        for part in texts.to_frame().iter_slices(_TOKENIZED_AT_ONCE)
        for encoding in tokenizer.encode_batch_fast(part.to_series().to_list(), add_special_tokens=False)
    ]
    return pl.Series("tokens", counts, dtype=pl.Int64)


def _per_row(rows: npt.NDArray[np.uint32], values: pl.Series, count: int) -> npt.NDArray[np.int64]:
    return np.bincount(rows, weights=values.to_numpy(), minlength=count).astype(np.int64)


def _integers(values: pl.Series) -> npt.NDArray[np.int64]:
    return values.cast(pl.Int64).to_numpy()


def _sizes_table(sizes: Mapping[str, tuple[int, int]]) -> pl.DataFrame:
    widths, heights = zip(*sizes.values(), strict=True)
    return pl.DataFrame({"text": list(sizes), "width": widths, "height": heights})


def _named_sizes(frame: pl.DataFrame, sizes: pl.DataFrame) -> pl.DataFrame:
    """Width and height, a row for each image that is named and known."""
    named = pl.concat([sizes.select("text").clear(), *(each.table.select("text") for each in assets_of(frame))])
    return named.join(sizes, on="text").select("width", "height")


def _image_sizes(frame: pl.DataFrame) -> pl.DataFrame | None:
    """The columns `width` and `height` in pixels, a row for each image that has both; None where none is told."""
    widths, heights = ([name for name in names if name in frame.columns] for names in (_WIDTHS, _HEIGHTS))
    if not widths or not heights:
        return None
    sizes = frame.select(width=widths[0], height=heights[0]).drop_nulls()
    if all(isinstance(kind, pl.List) for kind in sizes.dtypes):
        sizes = sizes.filter(pl.col("width").list.len() == pl.col("height").list.len())
        sizes = sizes.explode("width", "height").drop_nulls()
    return sizes if all(kind.is_integer() for kind in sizes.dtypes) else None
