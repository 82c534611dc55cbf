"""The errors a user can cause, each a sentence that says what to do next; the command line prints them without a
traceback."""


class ProfilerError(Exception):
    """Base of every error that is the input's fault: names what was given, what was expected, what to do next."""

    exit_code = 1


class Stopped(ProfilerError):
    """The user pressed Ctrl-C, or the system asked the process to end (SIGTERM)."""

    def __init__(self, message: str, exit_code: int = 130):
        super().__init__(message)
        self.exit_code = exit_code


class ModelError(ProfilerError):
    """The model cannot be loaded or its parts cannot be read."""


class CorpusError(ProfilerError):
    """The corpus cannot be found or read, or holds no text."""


class RunError(ProfilerError):
    """A run file is missing, unfinished, not a run, or cannot be written."""


class EngineError(ProfilerError):
    """DuckDB failed inside itself: nobody's mistake; says what is safe."""


class QueryError(ProfilerError):
    """A query is unknown, lacks a parameter, or fails."""


class ComponentError(ProfilerError):
    """A component label cannot be read or is not in the model."""


class PairError(ProfilerError):
    """A prompt pair cannot be used: it is named, with what is wrong with it."""


class PatchError(ProfilerError):
    """A patch names what is not there, or never fires."""


class CircuitError(ProfilerError):
    """A circuit file cannot be read, or a circuit does not fit the model."""


class PredictionError(ProfilerError):
    """A prediction cannot be scored, or what it names is not there."""


class SiteError(ProfilerError):
    """A site cannot be written where it was asked for."""


class ExportError(ProfilerError):
    """An export cannot be made, or cannot be written where it was asked for."""


class DictionaryError(ProfilerError):
    """A dictionary of features, directions or a subspace cannot be read, or does not fit the model."""
