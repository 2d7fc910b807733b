"""What is open while the server runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from exemplars.explorer import queries
from exemplars.explorer.beside import Besides
from exemplars.explorer.entropies import LensEntropies
from exemplars.explorer.layouts import Layouts
from exemplars.explorer.notes import Notes
from exemplars.explorer.prefixes import Prefixes
from exemplars.explorer.queries import Listed
from exemplars.explorer.relations import Drifts, Members, add_parents
from exemplars.explorer.shares import add_shares
from exemplars.explorer.views import View
from exemplars.explorer.worker import Worker

if TYPE_CHECKING:
    from exemplars.explorer.live import Run
    from exemplars.models import Model

_RUNS = 8
NO_MODEL = "the explorer was started with --no-model; start it without to trace and steer text"


class Explorer:
    """Dictionaries, their notes, and the thread of the models.

    Args:
        views: By their names in addresses.
        why_not_write: Why notes are not kept; None if they are.
        load: Gives a model by its name; None for no models.
        model: The name of the model of all dictionaries; None for those that they name.
    """

    def __init__(
        self,
        views: Mapping[str, View],
        *,
        why_not_write: str | None = None,
        load: Callable[[str], Model] | None = None,
        model: str | None = None,
    ) -> None:
        self.views = dict(views)
        self.notes = Notes(list(views.values()), why_not_write)
        self.worker = Worker(load or _none)
        self._loads, self._model = load is not None, model
        self.drifts = Drifts()
        self.besides = Besides()
        self.layouts = Layouts()
        self.members = Members()
        self.prefixes = Prefixes()
        self._listed: dict[str, tuple[int, Listed | None]] = {}
        self._runs: dict[str, Run] = {}
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._prepared = threading.Event()
        for view in self.views.values():
            if self.why_no_model(view) is None and "lens_entropy" not in view.columns:
                made = LensEntropies(view, self.worker, self.model_name(view))
                view.later["lens_entropy"] = made
        self.on_first_read: Callable[[], None] = lambda: None

    def listed(self, slug: str) -> Listed:
        """A dictionary and its labels.

        Raises:
            LookupError: There is none of this name.
        """
        view = self.views.get(slug)
        if view is None:
            raise LookupError(f"there is no dictionary {slug[:60]!r} open; see app")
        revision, listed = self._listed.get(slug, (-1, None))
        if listed is None or revision != self.notes.revision:
            revision = self.notes.revision
            listed = Listed(view, queries.labels_of(view, self.notes.labels(slug)))
            self._listed[slug] = revision, listed
        return listed

    def why_no_model(self, view: View) -> str | None:
        """Why no text can be read for a dictionary; None if it can."""
        if not self._loads:
            return NO_MODEL
        if view.dictionary.site is None:
            return "the dictionary does not say which site of its model it is of"
        if self._model is None and self._named(view) is None:
            return "the dictionary does not name its model; start with --model"
        return None

    def model_name(self, view: View) -> str:
        """The name of a dictionary's model.

        Raises:
            ValueError: It has none that can be loaded; says why.
        """
        reason = self.why_no_model(view)
        if reason is not None:
            raise ValueError(reason)
        return str(self._model or self._named(view))

    def loaded_model(self, view: View) -> Model | None:
        """A dictionary's model, if it is loaded by now."""
        if self.why_no_model(view) is not None:
            return None
        return self.worker.loaded(self.model_name(view))

    def models(self) -> list[dict[str, Any]]:
        """The models of all dictionaries, and whether they are loaded."""
        names = [
            self.model_name(view) for view in self.views.values() if not self.why_no_model(view)
        ]
        found = []
        for name in dict.fromkeys(names):
            status, reason = self.worker.status(name)
            found.append({"name": name, "status": status, "reason": reason})
        return found

    def remember(self, run: str, found: Run) -> None:
        """Keep what a traced text gave, for slices through its tokens; the oldest goes."""
        runs = {**self._runs, run: found}
        self._runs = dict(list(runs.items())[-_RUNS:])

    def run(self, run: str) -> Run:
        """What a traced text gave.

        Raises:
            LookupError: It is not kept any more.
        """
        if run not in self._runs:
            raise LookupError("this text is not kept any more; trace it again")
        return self._runs[run]

    def prepare(self) -> None:
        """Prepare all dictionaries and load the first model, beside the server."""

        def work() -> None:
            try:
                self._prepare_all()
            finally:
                self._prepared.set()

        thread = threading.Thread(target=work, name="prepare", daemon=True)
        self._threads.append(thread)
        thread.start()
        names = [about["name"] for about in self.models()]
        if names:
            self.worker.submit("load", "", lambda job: self.worker.load(names[0]))

    def _prepare_all(self) -> None:
        for view in self.views.values():
            if not self._closing.is_set():
                view.prepare()
        for slug in self.views:
            if not self._closing.is_set():
                add_parents(self.views, slug)
                add_shares(self.views, self.members, slug)
        if not self._closing.is_set():
            self.drifts.begin(self.views)

    @property
    def settled(self) -> bool:
        """Whether what is known of the dictionaries is there, but for what one asks for."""
        return self._prepared.is_set() and not self.drifts.busy

    def close(self) -> None:
        """Stop what runs, and close what is open."""
        self._closing.set()
        self.worker.close()
        self.drifts.close()
        self.besides.close()
        self.layouts.close()
        for thread in self._threads:
            thread.join(timeout=2)
        for view in self.views.values():
            view.close()

    def _named(self, view: View) -> str | None:
        about = view.dictionary.provenance.get("model")
        name = about.get("name") if isinstance(about, Mapping) else None
        return None if name is None else str(name)


def _none(name: str) -> Model:
    raise ValueError(NO_MODEL)
