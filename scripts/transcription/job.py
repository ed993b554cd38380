"""One task, from its arguments to its result. The host and the command line both end here."""

import os
import time
from dataclasses import asdict, dataclass, field

from . import arguments, media, outputs
from .failure import CANCELLED, Failure
from .partial import Partial

# Enough to recognise a transcript by; the whole of it is in the files.
RESULT_TEXT_CHARS = 500


@dataclass
class Word:
    start: float  # seconds of media
    end: float
    text: str
    probability: float


@dataclass
class Segment:
    start: float  # seconds of media
    end: float
    text: str
    words: list | None = None

    @classmethod
    def read(cls, written):
        """The segment that `asdict` has written."""
        words = written["words"]
        return cls(**written | {"words": words if words is None else [Word(**word) for word in words]})


@dataclass
class Boundary:
    """All segments given so far are whole, and the recogniser can go on from here."""

    at: dict  # for `recognise`


@dataclass
class Transcript:
    media: str
    media_s: float
    language: str | None
    script: str
    model: str
    segments: list = field(default_factory=list)

    @property
    def text(self):
        return " ".join(segment.text.strip() for segment in self.segments)


class Recogniser:
    """What a script brings: a model that is loaded once, and how it hears."""

    name = ""  # of the script
    default_model = ""
    settings = {}  # arguments of its own: name -> check
    language = None  # of the last recognition

    def __init__(self, model=None):
        self.model = model or self.default_model
        self.loads = 0

    @classmethod
    def from_options(cls, given):
        """The recogniser that the command line asks for."""
        return cls(given.model)

    def start(self):
        """Loads the model; counted, so that a result can show that it was done once."""
        self.load()
        self.loads += 1

    def load(self):
        raise NotImplementedError

    def check(self, request):
        """Raises ``bad_input`` for what this recogniser cannot do."""

    def recognise(self, audio, request, at=None):
        """Yields (seconds of media that are done, a ``Segment``, a ``Boundary`` or None), in order.

        `at` is that of an earlier attempt's ``Boundary``: what it had given by then is not given again, and
        everything else is as if it had never been left.
        """
        raise NotImplementedError


class Progress:
    """Media seconds that only rise, told no more often than people can read."""

    LEAST_INTERVAL_S = 0.2

    def __init__(self, tell=lambda *_: None):
        self._tell = tell
        self._media_s = -1.0
        self._told_at = None

    def reach(self, media_s, total_s, last=False):
        """`total_s` may be None, or too small, in a file that was cut or never finished."""
        now = time.monotonic()
        media_s = round(media_s, 2)
        early = self._told_at is not None and now - self._told_at < self.LEAST_INTERVAL_S
        if not last and (early or media_s <= self._media_s or media_s == round(total_s or 0.0, 2)):
            return
        self._media_s, self._told_at = media_s, now
        total_s = max(total_s, media_s) if total_s else None
        percent = 100.0 if last else (min(100.0 * media_s / total_s, 99.9) if total_s else None)
        self._tell(
            media_s, None if total_s is None else round(total_s, 2), None if percent is None else round(percent, 1)
        )


@dataclass
class Ear:
    """How a running task speaks with whoever gave it."""

    tell: object = lambda *_: None  # about progress
    cancelled: object = lambda: False
    checkpoint: object = None  # the state an earlier attempt has left
    keep: object = None  # told of states to go on from; without it nothing is kept
    asked: object = lambda: False  # to leave at the next boundary


def run(recogniser, args, ear=None):
    """Transcribes one media file and returns the result object of the host protocol; raises ``Left`` if it was left."""
    ear = ear or Ear()
    began = time.monotonic()
    request = arguments.parse(args, recogniser)
    recogniser.check(request)
    media.check(request.input)
    paths = request.outputs or outputs.default_paths(request.input, request.formats, request.output_dir)
    skipped = (
        [] if request.overwrite else [kind for kind, path in paths.items() if outputs.is_done(path, request.input)]
    )
    wanted = {kind: path for kind, path in paths.items() if kind not in skipped}
    result = {"outputs": paths, "skipped": skipped, "model": recogniser.model, "loads": recogniser.loads}
    if not wanted:
        return result | {"media_s": None, "language": None, "segments": 0, "text": "", "speed": None}
    partial = None
    if ear.keep is not None:
        partial = Partial(next(iter(paths.values())), request, recogniser, ear.keep, ear.asked)
    transcript, warnings = listen(recogniser, request, ear, partial)
    for kind, path in wanted.items():
        outputs.write_atomically(os.path.normpath(path), outputs.render(kind, transcript))
    if partial is not None:
        partial.remove()
    took = time.monotonic() - began
    result |= {
        "media_s": round(transcript.media_s, 3),
        "language": transcript.language,
        "segments": len(transcript.segments),
        "text": transcript.text[:RESULT_TEXT_CHARS],
        "speed": round(transcript.media_s / took, 2),
    }
    if not transcript.segments:
        result["empty"] = True
    if warnings:
        result["warnings"] = warnings
    return result


def listen(recogniser, request, ear, partial):
    """The transcript of the whole media, and what ffmpeg had to say about it."""
    progress = Progress(ear.tell)
    segments = []
    if partial is not None and ear.checkpoint is not None:
        segments = [Segment.read(written) for written in partial.resume(ear.checkpoint)]
    at = partial.at if partial is not None else None
    if at is not None:
        recogniser.language = partial.language
    with media.Audio(request.input) as audio:
        if at is not None:
            progress.reach(partial.media_s, audio.total_s)
        for done_s, heard in recogniser.recognise(audio, request, at):
            if isinstance(heard, Boundary) and partial is not None:
                partial.boundary(heard.at, done_s, recogniser.language)
            if isinstance(heard, Segment) and heard.text.strip():
                # A model may hear beyond the end; a player must not be told so.
                heard.end = min(heard.end, audio.read_s)
                heard.start = min(heard.start, heard.end)
                segments.append(heard)
                if partial is not None:
                    partial.add(asdict(heard))
            if ear.cancelled():
                raise Failure(CANCELLED, "cancelled", f"cancelled after {done_s:.1f} s of {request.input}")
            progress.reach(done_s, audio.total_s)
        media_s = audio.read_s
        progress.reach(media_s, media_s, last=True)
        warnings = audio.warnings
    return Transcript(
        request.input, media_s, recogniser.language, recogniser.name, recogniser.model, segments
    ), warnings
