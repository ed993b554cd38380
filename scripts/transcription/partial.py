"""What an interrupted transcription leaves behind: a hidden file beside the output, and a small state that names it.

    checkpoint   {"media": [size, mtime], "task": digest, "bytes": n, "media_s": 61.5, "language": "en", "at": {…}}

The segments heard so far are lines of the file; the state says how much of it counts and, as `at`, where the recogniser
goes on. Media that has changed, other arguments or a file that is gone mean: from the beginning. The file is made with the
first checkpoint and removed when the transcript is whole. Not here: what `at` means (each recogniser's own matter).
"""

import hashlib
import json
import os
import time

from .outputs import hidden_beside

# A checkpoint travels through the worker; more of them than this help nobody.
LEAST_INTERVAL_S = 1.0


class Left(Exception):
    """The task was left at a boundary, as it was asked to; ``state`` is where it goes on."""

    def __init__(self, state):
        super().__init__("left at a boundary")
        self.state = state


class Partial:
    """The segments of one task while it can be left."""

    def __init__(self, output, request, recogniser, tell=lambda _: None, asked=lambda: False):
        self.path = hidden_beside(output, "partial")
        self._tell = tell  # about a state
        self._asked = asked  # to leave
        self._media = facts(request.input)
        self._task = digest(request, recogniser)
        self._bytes = 0
        self._pending = []
        self._told_at = time.monotonic()
        self.at = None  # where the recogniser goes on
        self.media_s = 0.0
        self.language = None

    def resume(self, state):
        """The segments an earlier attempt has left, as objects; none where there is nothing to go on from."""
        try:
            if state["media"] != self._media or state["task"] != self._task or not isinstance(state["at"], dict):
                return []
            with open(self.path, "rb+") as file:
                kept = file.read(state["bytes"])
                if len(kept) != state["bytes"]:
                    return []
                segments = [json.loads(line) for line in kept.splitlines()]
                file.truncate(len(kept))
            self._bytes, self.at = len(kept), state["at"]
            self.media_s, self.language = float(state["media_s"]), state["language"]
            return segments
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def add(self, segment):
        self._pending.append(segment)

    def boundary(self, at, media_s, language):
        """All segments added so far are behind `at`. Says so now and then; raises ``Left`` if it is to leave."""
        asked, now = self._asked(), time.monotonic()
        if not asked and now - self._told_at < LEAST_INTERVAL_S:
            return
        try:
            self._write()
        except OSError:
            return  # nowhere to leave anything: it goes on to its end, which says what is wrong
        self._told_at = now
        state = {"media": self._media, "task": self._task, "bytes": self._bytes,
                 "media_s": round(media_s, 2), "language": language, "at": at}  # fmt: skip
        if asked:
            raise Left(state)
        self._tell(state)

    def _write(self):
        lines = "".join(json.dumps(segment, ensure_ascii=False) + "\n" for segment in self._pending).encode()
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self.path, flags, 0o666), "wb") as file:
            # What lies behind the last boundary is another attempt's, and is heard again.
            file.truncate(self._bytes)
            file.seek(self._bytes)
            file.write(lines)
        self._bytes += len(lines)
        self._pending.clear()

    def remove(self):
        try:
            os.unlink(self.path)
        except OSError:
            pass


def facts(media):
    """What tells one version of a file from another."""
    at = os.stat(media)
    return [at.st_size, at.st_mtime_ns]


def digest(request, recogniser):
    """What the segments depend on, but for the media."""
    heard = [recogniser.name, recogniser.model, request.input, request.language, request.word_timestamps,
             request.vad_filter, request.settings]  # fmt: skip
    return hashlib.sha256(json.dumps(heard, sort_keys=True).encode()).hexdigest()[:16]
