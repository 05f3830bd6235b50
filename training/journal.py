"""metrics.jsonl: one JSON object a line, appended as the run goes; what report and people read."""

import json
from collections.abc import Mapping
from pathlib import Path

from training.disk import naming_a_full_disk

Value = float | int | str | None


class Journal:
    """An append-only log of a run. On resuming, lines of steps that are about to be repeated are dropped."""

    def __init__(self, path: Path, resumed_step: int, is_writing: bool = True) -> None:
        """`is_writing` is false in every process of a run but the main one."""
        self._path, self._is_writing = path, is_writing
        if not is_writing:
            return
        kept = [line for line in read_journal(path) if int(line.get("step") or 0) <= resumed_step]
        draft = path.with_suffix(".tmp")
        with naming_a_full_disk(path):
            draft.write_text("".join(json.dumps(line) + "\n" for line in kept))
        draft.replace(path)

    def write(self, event: str, step: int, **values: Value) -> None:
        """Append one line; raises DiskFull."""
        if not self._is_writing:
            return
        with naming_a_full_disk(self._path), self._path.open("a") as file:
            file.write(json.dumps({"event": event, "step": step, **values}) + "\n")


def read_journal(path: Path) -> list[Mapping[str, Value]]:
    """Every whole line of a journal; a line torn by a kill is left out."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines
