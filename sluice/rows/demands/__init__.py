"""What is asked of rows beyond their schema: that they identify nobody, pass a filter, are not too long.

Cheap to import. `steps` gives what is done to canonical rows, one step a demand, in the order in which it is done:
rows that the filter drops are asked nothing more, and what is counted in tokens is what will be stored.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kit.rpc.errors import Invalid
from sluice.rows.demands.step import Looked, Step

__all__ = ["NO_DEMANDS", "Demands", "Looked", "Step", "check", "steps"]


@dataclass(frozen=True)
class Demands:
    """What is asked; by default nothing.

    `deidentify` is `report`, `mask` or `refuse`, with these `recognizers`. `keep` is an expression that is true for
    rows that are taken; `set` gives a column an expression's value, `tags` a word to find rows by. Rows of more than
    `max_tokens` tokens are wrong; what a token is says the `tokenizer`, the content of a tokenizer.json.
    """

    deidentify: str = ""
    recognizers: tuple[str, ...] = ("cued", "numbers")
    keep: str = ""
    set: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    max_tokens: int = 0
    tokenizer: bytes = field(default=b"", repr=False)

    def __bool__(self) -> bool:
        """Whether anything is asked at all."""
        return bool(self.deidentify or self.keep or self.set or self.tags or self.max_tokens)

    @property
    def labels(self) -> bool:
        """Whether rows get their label here, and may come without one."""
        return "label" in self.set


NO_DEMANDS = Demands()


def check(demands: Demands, row_schema: str) -> None:
    """Raises Invalid, with column and position, for what cannot be asked of rows of this schema."""
    if demands.keep or demands.set or demands.tags:
        from sluice.rows.demands import filters

        filters.check(demands, row_schema)
    if demands.max_tokens < 0 or bool(demands.max_tokens) != bool(demands.tokenizer):
        raise Invalid("a limit of tokens needs both: how many, and the tokenizer that counts them")


def steps(demands: Demands, row_schema: str, renaming: Callable[[Step], Step] = lambda step: step) -> list[Step]:
    """What is done to the canonical rows of a schema; `renaming` wraps what gives them other ids, groups and tags.

    Raises Invalid as `check` does, and for a bad tokenizer.
    """
    check(demands, row_schema)
    made: list[Step] = []
    if demands.keep or demands.set or demands.tags:
        from sluice.rows.demands.filters import filtering

        step = filtering(demands, row_schema)
        made.append(renaming(step) if demands.set or demands.tags else step)
    if demands.deidentify:
        from sluice.rows.demands.identity import identity

        made.append(identity(demands))
    if demands.max_tokens:
        from sluice.rows.demands.lengths import lengths

        made.append(lengths(demands))
    return made
