"""What this frontend knows of the models: names, versions, cards, and which workers serve them."""

import logging
from pathlib import Path

from models.card import BadCard, ModelCard, parse_card
from service.errors import NoWorker, UnknownModel
from service.links import WorkerLink
from service.messages import ModelsChanged, RefusedModel, ServedModel
from service.types import ModelSummary, RefusedVersion

log = logging.getLogger(__name__)

Key = tuple[str, int]  # name, version


class Roster:
    """Every version served or refused, as the supervisor last said, and the links to their workers."""

    def __init__(self) -> None:
        self.default_model = ""
        self.is_known = False
        self._served: dict[Key, ServedModel] = {}
        self._refused: dict[str, list[RefusedModel]] = {}
        self._cards: dict[str, ModelCard] = {}
        self._links: dict[Key, list[WorkerLink]] = {}
        self._resolved: dict[str, ServedModel] = {}

    def change_models(self, changed: ModelsChanged) -> None:
        """Take the supervisor's word for everything served and refused."""
        self.is_known = True
        self.default_model = changed.default_model
        self._served = {(model.name, model.version): model for model in changed.served}
        self._refused = {}
        for refused in changed.refused:
            self._refused.setdefault(refused.name, []).append(refused)
        for model in changed.served:
            self._read_card(model)
        digests = {model.digest for model in changed.served} | {
            link.model.digest for links in self._links.values() for link in links
        }
        self._cards = {digest: card for digest, card in self._cards.items() if digest in digests}
        self._resolved.clear()

    def add_link(self, link: WorkerLink) -> None:
        """A worker is up; its model is served from now on, if it was not."""
        key = (link.model.name, link.model.version)
        self._served.setdefault(key, link.model)
        self._links.setdefault(key, []).append(link)
        self._read_card(link.model)
        self._resolved.clear()

    def remove_link(self, link: WorkerLink) -> None:
        """A worker is gone."""
        key = (link.model.name, link.model.version)
        links = [one for one in self._links.get(key, ()) if one is not link]
        if links:
            self._links[key] = links
        else:
            self._links.pop(key, None)

    def list_links(self, model: ServedModel | None = None) -> list[WorkerLink]:
        """The links to the workers of one version, or of all; retiring ones too."""
        if model is None:
            return [link for links in self._links.values() for link in links]
        return self._links.get((model.name, model.version), [])

    def resolve(self, wanted: str) -> ServedModel:
        """The version that answers to "", "name" or "name@version"; raises UnknownModel."""
        found = self._resolved.get(wanted)
        if found is None:
            found = self._resolve(wanted)
            self._resolved[wanted] = found  # only names that exist, so it stays small
        return found

    def find_card(self, model: ServedModel) -> ModelCard:
        """The card of a served version; raises UnknownModel where its file could not be read."""
        card = self._cards.get(model.digest)
        if card is None:
            raise UnknownModel(f"the card of {model.name}@{model.version} cannot be read")
        return card

    def has_card(self, digest: str) -> bool:
        """Whether that version is served, or some worker still has it, and its card was read."""
        return digest in self._cards

    def label_of(self, wanted: str) -> str:
        """The served name `wanted` means, or "other": a closed set for the labels of metrics."""
        try:
            return self.resolve(wanted).name
        except (UnknownModel, NoWorker):
            return "other"

    def summarize(self, wanted: str) -> ModelSummary:
        """The version `wanted` means; a name of which every version is refused is found too."""
        try:
            return self._summarize(self.resolve(wanted))
        except UnknownModel:
            name, _, version = wanted.partition("@")
            for refused in self._refused.get(name, ()):
                if version in ("", str(refused.version)):
                    return self._summarize_refused(refused)
            raise

    def list_summaries(self) -> list[ModelSummary]:
        """Every version served, then every name of which all versions are refused, in name order."""
        served = [self._summarize(self._served[key]) for key in sorted(self._served)]
        names = {summary.name for summary in served}
        return served + [
            self._summarize_refused(versions[0])
            for name, versions in sorted(self._refused.items())
            if name not in names
        ]

    def _resolve(self, wanted: str) -> ServedModel:
        name, _, version = (wanted or self.default_model).partition("@")
        for model in self._served.values():
            if model.name == name and (
                str(model.version) == version or (not version and model.is_default_version)
            ):
                return model
        if not self._served and not self._refused:
            raise NoWorker("no model is up yet", retry_after_s=1.0)
        names = ", ".join(sorted({model.name for model in self._served.values()})) or "none"
        asked = (wanted or self.default_model)[:100]
        raise UnknownModel(f"no model {asked!r} is served; served are: {names}")

    def _read_card(self, model: ServedModel) -> None:
        if model.digest in self._cards:
            return
        try:
            self._cards[model.digest] = parse_card(Path(model.card_path).read_bytes())
        except (OSError, BadCard) as err:
            fields = {"model": model.name, "version": model.version, "cause": str(err)}
            log.error("card not read", extra={"fields": fields})

    def _summarize(self, model: ServedModel) -> ModelSummary:
        links = [link for link in self.list_links(model) if link.is_open]
        return ModelSummary(
            name=model.name,
            version=model.version,
            digest=model.digest,
            state="ready" if links else "loading",
            is_default=model.name == self.default_model and model.is_default_version,
            is_default_version=model.is_default_version,
            workers=len(links),
            precisions=tuple(model.precisions),
            card=self._cards.get(model.digest),
            cost_ms=dict(links[0].cost_ms) if links else {},
            refused=self._list_refused(model.name),
        )

    def _summarize_refused(self, refused: RefusedModel) -> ModelSummary:
        return ModelSummary(
            name=refused.name,
            version=refused.version,
            digest="",
            state="refused",
            is_default=False,
            is_default_version=False,
            workers=0,
            precisions=(),
            card=None,
            refused=self._list_refused(refused.name),
        )

    def _list_refused(self, name: str) -> tuple[RefusedVersion, ...]:
        return tuple(RefusedVersion(one.version, one.reason) for one in self._refused.get(name, ()))
