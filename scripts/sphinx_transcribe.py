#!/usr/bin/env python3
"""Transcribes English speech with pocketsphinx: no GPU, no network, no Python package.

An old and modest recogniser, from Debian's libpocketsphinx3 and pocketsphinx-en-us, loaded through
ctypes. It is the fallback where no Whisper model can be had, and what the tests listen with.
Words come in lower case and without punctuation, with their times.

  sphinx_transcribe.py talk.webm lecture.mp4 --formats txt,srt
  sphinx_transcribe.py --host            serve tasks as JSON lines (this is how a worker runs it)
"""

import ctypes
import glob
import os
import re
import sys

from transcription import command_line, media
from transcription.arguments import one_of
from transcription.failure import CRASH, Failure, bad_input
from transcription.job import Boundary, Recogniser, Segment, Word
from transcription.silence import Utterances, seconds

MODELS = "/usr/share/pocketsphinx/model"
FRAMES_PER_SECOND = 100
# Fillers (`<sil>`, `[NOISE]`, `++BREATH++`) are no words; `read(2)` is the second way to say `read`.
FILLER = re.compile(r"^[<\[+]")
VARIANT = re.compile(r"\(\d+\)$")
INSTALL = "on Debian: apt-get install libpocketsphinx3 pocketsphinx-en-us"


class Library:
    """The few functions of libpocketsphinx that are needed, with their types."""

    def __init__(self):
        try:
            base = ctypes.CDLL("libsphinxbase.so.3")
            self._sphinx = ctypes.CDLL("libpocketsphinx.so.3")
        except OSError as error:
            raise Failure(CRASH, "missing_dependency", f"{error}; {INSTALL}") from None
        pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
        declare = self._declare
        declare(base, "cmd_ln_parse_r", pointer, pointer, pointer, number, ctypes.POINTER(text), number)
        declare(base, "logmath_exp", ctypes.c_double, pointer, number)
        declare(self._sphinx, "ps_args", pointer)
        declare(self._sphinx, "ps_init", pointer, pointer)
        declare(self._sphinx, "ps_start_stream", number, pointer)
        declare(self._sphinx, "ps_start_utt", number, pointer)
        declare(self._sphinx, "ps_process_raw", number, pointer, text, ctypes.c_size_t, number, number)
        declare(self._sphinx, "ps_end_utt", number, pointer)
        declare(self._sphinx, "ps_get_logmath", pointer, pointer)
        declare(self._sphinx, "ps_seg_iter", pointer, pointer)
        declare(self._sphinx, "ps_seg_next", pointer, pointer)
        declare(self._sphinx, "ps_seg_word", text, pointer)
        declare(self._sphinx, "ps_seg_frames", None, pointer, ctypes.POINTER(number), ctypes.POINTER(number))
        declare(self._sphinx, "ps_seg_prob", number, pointer, pointer, pointer, pointer)

    def _declare(self, library, name, result, *arguments):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
        setattr(self, name, function)


class Sphinx(Recogniser):
    name = "sphinx_transcribe"
    default_model = "en-us"
    settings = {"task": one_of("transcribe")}
    language = "en"

    def load(self):
        media.require_ffmpeg()
        self._library = Library()
        acoustic, grammar, words = model_files(self.model)
        # Silence is cut out here, so the decoder must not remove any: its word times would drift.
        options = ["sphinx_transcribe", "-hmm", acoustic, "-lm", grammar, "-dict", words,
                   "-remove_silence", "no", "-logfn", "/dev/null"]  # fmt: skip
        vector = (ctypes.c_char_p * len(options))(*[os.fsencode(option) for option in options])
        config = self._library.cmd_ln_parse_r(None, self._library.ps_args(), len(options), vector, 1)
        self._decoder = self._library.ps_init(config) if config else None
        if not self._decoder:
            raise Failure(CRASH, "model_load_failed", f"pocketsphinx cannot load the model in {acoustic}")
        self._logmath = self._library.ps_get_logmath(self._decoder)

    def check(self, request):
        if request.language not in (None, "en"):
            raise bad_input("bad_language", f"`language` is {request.language!r}; sphinx_transcribe knows only `en`")

    def recognise(self, audio, request, at=None):
        utterances = Utterances(keep_silence=not request.vad_filter)
        with_words = request.word_timestamps is not False
        # Pauses are found anew from the beginning, which takes little; what was heard between them is not heard again.
        known = at["utterances"] if at else 0
        count = 0
        for chunk in audio.chunks():
            for start, samples in utterances.feed(chunk):
                count += 1
                if count > known:
                    done_s = start + seconds(samples)
                    yield done_s, self._decode(start, samples, with_words)
                    yield done_s, Boundary({"utterances": count})
            yield utterances.done_s, None
        for start, samples in utterances.finish():
            if count >= known:
                yield start + seconds(samples), self._decode(start, samples, with_words)

    def _decode(self, start, samples, with_words):
        """The words of one utterance. Whole utterances make the result independent of what came before."""
        library, decoder = self._library, self._decoder
        count = len(samples) // media.SAMPLE_BYTES
        failed = library.ps_start_stream(decoder) < 0 or library.ps_start_utt(decoder) < 0
        failed = failed or library.ps_process_raw(decoder, samples, count, 0, 1) < 0
        if failed or library.ps_end_utt(decoder) < 0:
            raise Failure(CRASH, "recogniser_failed", f"pocketsphinx gave up at {start:.1f} s")
        words = list(self._words(start))
        if not words:
            return None
        text = " ".join(word.text for word in words)
        return Segment(words[0].start, words[-1].end, text, words if with_words else None)

    def _words(self, start):
        library = self._library
        first, last = ctypes.c_int(), ctypes.c_int()
        at = library.ps_seg_iter(self._decoder)
        while at:
            text = library.ps_seg_word(at).decode("utf-8", "replace")
            if not FILLER.match(text):
                library.ps_seg_frames(at, ctypes.byref(first), ctypes.byref(last))
                sure = library.logmath_exp(self._logmath, library.ps_seg_prob(at, None, None, None))
                begin, end = first.value / FRAMES_PER_SECOND, (last.value + 1) / FRAMES_PER_SECOND
                yield Word(start + begin, start + end, VARIANT.sub("", text), min(sure, 1.0))
            at = library.ps_seg_next(at)


def model_files(model):
    """Acoustic folder, language model and dictionary of a model, by name or by path of its folder."""
    folder = model if os.path.isabs(model) else os.path.join(MODELS, model)
    if not os.path.isdir(folder):
        if model == Sphinx.default_model:
            raise Failure(CRASH, "missing_dependency", f"there is no folder {folder}; {INSTALL}")
        raise bad_input(
            "model_not_found", f"there is no folder {folder}; name `en-us`, or the folder of a pocketsphinx model"
        )
    acoustic = [os.path.dirname(path) for path in glob.glob(os.path.join(glob.escape(folder), "*", "mdef"))]
    grammar = [
        path
        for path in glob.glob(os.path.join(glob.escape(folder), "*.lm.bin"))
        if "phone" not in os.path.basename(path)
    ]
    words = glob.glob(os.path.join(glob.escape(folder), "*.dict"))
    for found, what in ((acoustic, "*/mdef"), (grammar, "*.lm.bin"), (words, "*.dict")):
        if len(found) != 1:
            raise bad_input("model_not_found", f"{folder} must hold exactly one {what}, it has {len(found)}")
    return acoustic[0], grammar[0], words[0]


def options():
    return command_line.parser(Sphinx, __doc__)


if __name__ == "__main__":
    sys.exit(command_line.main(Sphinx, options()))
