"""The pages of an open run, each made when it is asked for and kept: reports, cards, texts, finds, comparisons, notes.

Pages are those of a site (`profiler.pages.site`), with a bar of forms. The model is loaded with the first text. Cost:
a card takes half a second the first time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import RLock
from urllib.parse import urlencode

import polars as pl
from duckdb import DuckDBPyConnection as Connection
from markupsafe import Markup

from profiler.config import ModelChoice
from profiler.database import query
from profiler.errors import QueryError
from profiler.pages import build, method, page, tables
from profiler.pages.blocks import Report, Section, Source, Table
from profiler.pages.reader import Reader, Result
from profiler.pages.shell import Shell
from profiler.pages.site import cards, pages
from profiler.pages.site.extract import Extract
from profiler.run import Run
from profiler.serve.notes import Notes, PageNote

TAKEN = 8
"""Components whose rows are taken out of the run together: the next ones are likely to be asked for next."""
MOST_CARDS = 500
"""Cards that are kept in memory."""
OWN_PAGES = (("try.html", "Try a text"), ("find.html", "Find"), ("compare.html", "Compare"), ("notes.html", "Notes"))
FROM_WEIGHTS = Source("", "")
"""Of an answer that no query gives."""
Asked = Mapping[str, str]
"""What a page is asked, by the names of its form's fields."""


@dataclass
class LiveSite:
    """The pages of a run that is open for reading. Threads may ask at once; pages are made one after another.

    Attributes:
        run: the run.
        choice: the model of texts.
    """

    run: Run
    choice: ModelChoice = field(default_factory=ModelChoice)
    _lock: RLock = field(default_factory=RLock, repr=False)
    _cards: dict[str, str] = field(default_factory=dict, repr=False)

    @cached_property
    def notes(self) -> Notes:
        """Notes beside the run."""
        return Notes.beside(self.run.path)

    @property
    def connection(self) -> Connection:
        """The run, for reading."""
        return self.run.connection

    @cached_property
    def _read(self) -> Reader:
        return Reader(self.connection)

    @cached_property
    def _taken(self) -> tuple[Extract, Reader]:
        extract = Extract(self.run.path)
        return extract, Reader(extract.connection)

    @cached_property
    def _contents(self) -> pages.Contents:
        return pages.contents(self.connection)

    @cached_property
    def _frame(self) -> pl.DataFrame:
        return pages.components_frame(self._read)

    @cached_property
    def _labels(self) -> dict[str, str]:
        """The way to the card of each component."""
        found = query.run(self.connection, "SELECT component FROM components ORDER BY component_id")
        return {label: f"cards/{cards.file_name(label)}.html" for label in found["component"]}

    @cached_property
    def _places(self) -> dict[str, str]:
        return self._labels | {name: file for name, (file, _) in self._contents.checks.items()}

    @cached_property
    def _makers(self) -> dict[str, Callable[[], str]]:
        every = "Every component has a card, made when it is asked for."
        return pages.makers(self._read, self._contents, lambda: self._frame, self._shell, self.run.path.name, every)

    @cached_property
    def _assets(self) -> dict[str, Callable[[], str]]:
        return pages.assets(lambda: self._frame, lambda: self._labels)

    @cached_property
    def _loaded(self) -> object:
        """The model, loaded with the first text."""
        from profiler.model.of_run import load_for

        return load_for(self.run.path, self.choice)

    # --- pages, as text ---

    def asset(self, name: str) -> str:
        """A file that pages load.

        Raises:
            KeyError: there is none of this name.
        """
        with self._lock:
            return self._assets[name]()

    def report(self, file: str) -> str:
        """A page about the run.

        Raises:
            KeyError: there is none of this name.
        """
        with self._lock:
            return self._makers[file]()

    def card(self, label: str, *, bare: bool = False) -> str:
        """The card of a component.

        Args:
            bare: without navigation and forms, to stand beside another.

        Raises:
            ComponentError: the run has no such component.
        """
        with self._lock:
            component = build.find(self.connection, label)
            notes = () if bare else self._notes_on(f"cards/{cards.file_name(label)}.html")
            key = f"{label} {bare} {[note.id for note in notes]}"
            if key not in self._cards:
                read = self._reader_of(label)
                whole = self._shell(f"cards/{cards.file_name(label)}.html", "../", {"component": label}, notes)
                shell = Shell("../", served=True) if bare else whole
                with page.unchecked():
                    self._cards[key] = page.render(build.load("component").build(read, component), shell)
            while len(self._cards) > MOST_CARDS:
                self._cards.pop(next(iter(self._cards)))
            return self._cards[key]

    def sentence(self, asked: Asked) -> str:
        """What the model does on a text: fields text, component, remove, scale, set, after.

        Raises:
            ProfilerError: as `Run.try_text`.
        """
        from profiler.sentence.page import build as report_of

        many = {name: asked.get(name, "").replace(",", " ").split() for name in ("remove", "scale", "set")}
        with self._lock:
            shell = self._shell(_way("try.html", asked), "", asked)
            if not asked.get("text"):
                said = "Type a text above: its tokens are shown with what components do."
                return self._empty("Try a text", said, shell)
            result = self.run.try_text(
                asked["text"],
                asked.get("component") or None,
                remove=many["remove"],
                scale=many["scale"],
                set_to=many["set"],
                after=asked.get("after") or None,
                model=self._loaded,
            )
            return page.render(report_of(Reader(self.connection), result), shell)

    def find(self, asked: Asked) -> str:
        """Components by words, by likeness to another (like, by) or by a token.

        Raises:
            QueryError: no behaviour has to do with the words.
            ComponentError: the run has no component `like`.
        """
        with self._lock:
            shell = self._shell(_way("find.html", asked), "", asked)
            return (
                page.render(self._found(asked), shell)
                if any(asked.values())
                else self._empty(
                    "Find", "Say what a component does, such as number or previous token, or name a token.", shell
                )
            )

    def compare(self, asked: Asked) -> str:
        """The cards of two components side by side: fields first, second.

        Raises:
            ComponentError: the run lacks them.
        """
        labels = [asked[name] for name in ("first", "second") if asked.get(name)]
        with self._lock:
            shell = self._shell(_way("compare.html", asked), "", asked)
            for label in labels:
                query.check_component(self.connection, label)
            return self._rendered("compare.html.jinja", shell, labels=labels)

    def all_notes(self) -> str:
        """The page of notes."""
        with self._lock:
            shell = self._shell("notes.html")
            return self._rendered("notes.html.jinja", shell, notes=self.notes.all(), file=self.notes.file.name)

    def refusal(self, message: str) -> str:
        """A page that says why there is none."""
        with self._lock:
            return self._empty("That cannot be shown", message, self._shell(""))

    # --- what they are made of ---

    def _reader_of(self, label: str) -> Reader:
        """A reader of what was taken out of the run for a component and those that follow it in the table."""
        extract, read = self._taken
        if label not in extract.labels:
            order = query.run(self.connection, "SELECT component FROM importance ORDER BY sum_abs_dla DESC, component")
            listed = order["component"].to_list()
            first = listed.index(label) if label in listed else len(listed)
            extract.hold([*listed[first : first + TAKEN]] or [label])
        read.forget("component")
        return read

    def _shell(
        self, current: str, root: str = "", asked: Asked | None = None, notes: tuple[PageNote, ...] = ()
    ) -> Shell:
        file = current.split("?")[0]
        own = tuple((words, place, place == file) for place, words in OWN_PAGES)
        bar = (
            page.environment()
            .get_template("bar.html.jinja")
            .render(root=root, file=file, page=current, asked=asked or {}, notes=notes)
        )
        links = (*self._contents.links(file), *own)
        return Shell(root, links, self._places, Markup(bar), served=True)

    def _notes_on(self, way: str) -> tuple[PageNote, ...]:
        return tuple(note for note in self.notes.all() if note.page == way)

    def _rendered(self, template: str, shell: Shell, **values: object) -> str:
        model = method.run_row(self._read)["model"]
        return page.environment().get_template(template).render(shell=shell, model=model, **values)

    def _empty(self, title: str, sentence: str, shell: Shell) -> str:
        return page.render(self._report(title, (sentence,), ()), shell)

    def _report(self, title: str, answer: tuple[str, ...], sections: tuple[Section, ...]) -> Report:
        read = self._read
        return Report(
            title, method.run_row(read)["model"], answer, sections, method.method(read), method.run_facts(read)
        )

    def _found(self, asked: Asked) -> Report:
        read, caption = Reader(self.connection), "As the query gives them."
        if like := asked.get("like"):
            by = asked.get("by") or "coactivation"
            if by == "direction":
                result = Result(FROM_WEIGHTS, self.run.similar_writes(like, model=self._loaded))
                caption = "Likeness of what they write, read off the weights; no query of the run gives it."
            else:
                result = read("similar", component=like, measure=by)
            said = f"Components of the kind of {like}, ordered by {by}."
        elif token := asked.get("token"):
            result = read("components_by_token", token=token)
            said = f"Components that matter at the token {token!r}."
        elif words := asked.get("words"):
            found = self.run.find(words)
            result, said = read("components_by_behaviour", behaviour=found.behaviour), found.described
        else:
            raise QueryError("say what to find: words, a component that others are to be like, or a token")
        block = tables.table("Components", caption, result, _columns(result), width="full")
        if isinstance(block, Table) and block.source == FROM_WEIGHTS:
            block = replace(block, source=None)
        return self._report("Find", (said,), (Section("", "", (block,)),))


def _columns(result: Result) -> list[tables.Column]:
    """A column of a page for each column of the frame; bounds stand with what they bound."""
    made = []
    for name, kind in result.frame.schema.items():
        if name.endswith(("_lo", "_hi", "_se")):
            continue
        label = name.replace("_", " ").capitalize()
        if kind == pl.String:
            made.append(tables.words(name, label))
        elif kind.is_integer():
            made.append(tables.count(name, label))
        elif kind.is_numeric():
            made.append(tables.value(name, label))
    return made


def _way(file: str, asked: Asked) -> str:
    """The way to a page with what it is asked."""
    said = {name: value for name, value in asked.items() if value}
    return f"{file}?{urlencode(said)}" if said else file
