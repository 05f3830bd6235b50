"""What ended within one turn of the event loop, counted together at its end.

A write of a metric is a call into a mapped file, so equal ones are made one.

Nobody can see it: whatever is asked of this process next is read in a later turn.
"""

from collections.abc import Callable

from service.metrics.images import ImageMetrics
from service.metrics.requests import RequestMetrics
from service.types import Classification

Defer = Callable[[Callable[[], None]], object]
Ending = tuple[str, str, str, str]  # route, protocol, model, code


def count_at_once(write: Callable[[], None]) -> None:
    """For processes without an event loop."""
    write()


class Tally:
    """`defer` runs what it is given before this process reads anything more, such as loop.call_soon."""

    def __init__(self, images: ImageMetrics, requests: RequestMetrics, defer: Defer) -> None:
        self._images, self._requests, self._defer = images, requests, defer
        self._answers: list[Classification] = []
        self._endings: dict[Ending, int] = {}
        self._is_due = False

    def count_answer(self, answer: Classification) -> None:
        """One image was answered."""
        self._answers.append(answer)
        if not self._is_due:
            self._plan()

    def count_request(self, route: str, protocol: str, model: str, code: str) -> None:
        """One request ended; see RequestMetrics.count."""
        ending = (route, protocol, model, code)
        self._endings[ending] = self._endings.get(ending, 0) + 1
        if not self._is_due:
            self._plan()

    def write(self) -> None:
        """Write what was counted."""
        self._is_due = False
        answers, self._answers = self._answers, []
        endings, self._endings = self._endings, {}
        if len(answers) == 1:
            self._images.count_answer(answers[0])
        elif answers:
            self._images.count_answers(answers)
        for ending, requests in endings.items():
            self._requests.count(*ending, requests)

    def _plan(self) -> None:
        self._is_due = True
        self._defer(self.write)
