"""An item is one image of a batch: where its bytes are, or why it has none. Item n is answered by line n."""

import msgspec

from service.errors import ServiceError
from service.protocols.status import STATUS
from service.types import Classification

ItemId = str | int | None


class ItemError(msgspec.Struct, frozen=True):
    """Why one image has no predictions: the `type` slug of service.errors, its title and a detail."""

    type: str
    title: str
    detail: str


class Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a job's `items` file.

    `id`: the part's, member's or line's name. Its bytes are `size` bytes at `offset` of the job's `images`
    file, or the file `source` of the store its manifest named; with `error` there are none.
    """

    id: ItemId
    offset: int = 0
    size: int = 0
    source: str = ""
    error: ItemError | None = None


class RankedClass(msgspec.Struct, frozen=True):
    """One ranked class of a line; the same names and numbers as POST /v1/classify."""

    index: int
    label: str
    probability: float


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the results: `predictions` (and `logits`, if asked for), or `error`."""

    index: int
    id: ItemId
    predictions: list[RankedClass] | None = None
    logits: list[float] | None = None
    error: ItemError | None = None


def describe_error(error: ServiceError) -> ItemError:
    """What a caller is told about one image."""
    return ItemError(error.slug, STATUS[error.slug].title, error.detail)


def make_line(index: int, item: Item, answer: Classification) -> Line:
    """The line of an image that was classified."""
    ranked = [RankedClass(one.index, one.label, one.probability) for one in answer.predictions]
    logits = None if answer.logits is None else list(answer.logits)
    return Line(index, item.id, predictions=ranked, logits=logits)


def make_error_line(index: int, item: Item, error: ItemError) -> Line:
    """The line of an image that was not."""
    return Line(index, item.id, error=error)
