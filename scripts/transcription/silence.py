"""Where people speak: a stream of samples becomes utterances, cut at pauses.

Loudness against a noise floor that follows the recording; no model. Good enough to find pauses, which is
all a recogniser of whole utterances needs. Not here: telling speech from other loud sounds.
"""

import array
import math
import sys
from collections import deque
from operator import mul

from .media import BYTES_PER_SECOND, SAMPLE_BYTES, SAMPLE_RATE

FRAME_S = 0.02
FRAME_BYTES = int(SAMPLE_RATE * FRAME_S) * SAMPLE_BYTES

# Loudness is the root mean square of 16-bit samples. Speech stands 10 dB above the floor, and above -61 dBFS.
SPEECH_OVER_FLOOR = 3.0
SPEECH_LEAST = 30.0
FLOOR_AT_START = 100.0
FLOOR_LEAST = 10.0
# The floor falls with the quietest frame and rises by a fifth in a second, so that it rests in the pauses.
FLOOR_RISE = 1.004

START_FRAMES = 3  # speech frames in a row that begin an utterance
PAUSE_FRAMES = 25  # half a second of silence ends it
PAD_FRAMES = 10  # silence kept around it: the first consonant is often quieter than the threshold
LONGEST_FRAMES = 750  # a recogniser of whole utterances slows down, and holds progress back, beyond 15 s


class Utterances:
    """Feed it chunks; it gives back (start in seconds, samples) for each utterance that has ended."""

    def __init__(self, keep_silence=False):
        self._keep_silence = keep_silence
        self._floor = FLOOR_AT_START
        self._rest = b""
        self._taken = 0  # frames taken in so far
        self._frames = []  # (frame, loudness) of the utterance in hand
        self._quiet = deque(maxlen=PAD_FRAMES + START_FRAMES)
        self._run = 0  # frames in a row: of speech outside an utterance, of silence inside one

    @property
    def done_s(self):
        """Seconds of media that are behind us: everything before the utterance in hand."""
        return (self._taken - len(self._frames)) * FRAME_S

    def feed(self, chunk):
        samples = self._rest + chunk
        whole = len(samples) - len(samples) % FRAME_BYTES
        self._rest = samples[whole:]
        for at in range(0, whole, FRAME_BYTES):
            yield from self._take(samples[at : at + FRAME_BYTES])

    def finish(self):
        """The utterance that the end of the media cut off."""
        if self._frames:
            yield self._emit(len(self._frames))

    def _take(self, frame):
        level = loudness(frame)
        speech = self._is_speech(level)
        self._taken += 1
        if not self._frames:
            self._quiet.append((frame, level))
            self._run = self._run + 1 if speech else 0
            if self._run >= START_FRAMES or self._keep_silence:
                self._frames = list(self._quiet)
                self._quiet.clear()
                self._run = 0
            return
        self._frames.append((frame, level))
        self._run = 0 if speech else self._run + 1
        if self._run >= PAUSE_FRAMES and not self._keep_silence:
            yield self._emit(len(self._frames) - PAUSE_FRAMES + PAD_FRAMES)
            self._quiet.extend(self._frames)
            self._frames = []
            self._run = 0
        elif len(self._frames) >= LONGEST_FRAMES:
            yield self._emit(self._quietest())

    def _is_speech(self, level):
        self._floor = max(FLOOR_LEAST, min(level, self._floor * FLOOR_RISE))
        return level > max(SPEECH_LEAST, self._floor * SPEECH_OVER_FLOOR)

    def _quietest(self):
        """Where to cut speech that never pauses: the quietest tenth of a second of its last third."""
        levels = [level for _, level in self._frames]
        return min(range(LONGEST_FRAMES * 2 // 3, LONGEST_FRAMES - 5), key=lambda at: sum(levels[at : at + 5])) + 2

    def _emit(self, count):
        start = (self._taken - len(self._frames)) * FRAME_S
        samples = b"".join(frame for frame, _ in self._frames[:count])
        self._frames = self._frames[count:]
        return start, samples


def loudness(frame):
    samples = array.array("h")
    samples.frombytes(frame)
    if sys.byteorder == "big":
        samples.byteswap()
    return math.sqrt(sum(map(mul, samples, samples)) / len(samples))


def seconds(samples):
    return len(samples) / BYTES_PER_SECOND
