"""A media file becomes 16 kHz mono samples, read from ffmpeg through a pipe as they are decoded.

Not here: what the samples mean. Nothing is written to disk.
"""

import os
import re
import shutil
import stat
import subprocess
import threading

from .failure import CRASH, Failure, bad_input

SAMPLE_RATE = 16_000
SAMPLE_BYTES = 2
BYTES_PER_SECOND = SAMPLE_RATE * SAMPLE_BYTES

# Until ffmpeg has named the duration; it does so before its first sample.
HEADER_TIMEOUT_S = 5.0
# Lines of ffmpeg's log kept for a message; a broken file can give one for each packet.
LOG_LINES_MAX = 200

SUFFIXES = frozenset(
    ".3gp .aac .aiff .amr .avi .flac .flv .m4a .m4v .mka .mkv .mov .mp2 .mp3 .mp4 .mpeg .mpg "
    ".mts .oga .ogg .ogv .opus .ts .wav .webm .wma .wmv".split()
)

DURATION = re.compile(r"Duration: (?:(\d+):(\d\d):(\d\d(?:\.\d+)?)|N/A)")
LEVEL = re.compile(r"^(?:\[[^\]]*\] )?\[(\w+)\] ?")


def check(path):
    """Raises ``bad_input`` unless `path` is a readable regular file (a FIFO would hang for ever)."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise bad_input("input_not_found", f"there is no file {path}") from None
    except OSError as error:
        raise bad_input("input_not_readable", f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise bad_input("input_not_a_file", f"{path} is not a regular file")
    if not os.access(path, os.R_OK):
        raise bad_input("input_not_readable", f"{path}: permission denied")


def require_ffmpeg():
    """Raises where ffmpeg is missing, saying how to get it."""
    if shutil.which("ffmpeg") is None:
        raise Failure(CRASH, "missing_dependency", "ffmpeg is not on PATH; on Debian: apt-get install ffmpeg")


class Audio:
    """The audio of one media file, while it is being decoded. Use as a context manager."""

    def __init__(self, path):
        check(path)
        self.path = path
        self.read_bytes = 0
        self.total_s = None  # as the container says; None where it does not
        self._log = []  # (level, words)
        self._header = threading.Event()
        self._process = subprocess.Popen(
            self._command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _command(self):
        # `file:` and the whitelist keep a playlist from naming other hosts. `first_pts=0` fills the gap where
        # the sound begins later than the picture, so that subtitles stay in step with the video.
        return ["ffmpeg", "-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info",
                "-protocol_whitelist", "file", "-i", f"file:{self.path}", "-map", "0:a:0",
                "-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", str(SAMPLE_RATE),
                "-f", "s16le", "-protocol_whitelist", "pipe", "pipe:1"]  # fmt: skip

    def _listen(self):
        for raw in self._process.stderr:
            line = raw.decode("utf-8", "replace").rstrip()
            level = LEVEL.match(line)
            words = line[level.end() :].strip() if level else line.strip()
            found = DURATION.match(words)
            if found and not self._header.is_set():
                if found[1]:
                    self.total_s = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
                self._header.set()
            if level and level[1] in ("error", "fatal", "panic") and len(self._log) < LOG_LINES_MAX:
                self._log.append(words)
        self._header.set()

    def __enter__(self):
        self._header.wait(HEADER_TIMEOUT_S)
        return self

    def __exit__(self, *_):
        self._process.stdout.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._listener.join()
        self._process.stderr.close()

    @property
    def read_s(self):
        """Seconds of sound read so far."""
        return self.read_bytes / BYTES_PER_SECOND

    @property
    def warnings(self):
        """What ffmpeg complained about in a file it could still decode."""
        return list(dict.fromkeys(self._log))[:5]

    def chunks(self, seconds=1.0):
        """Samples (signed 16 bit, little endian) in pieces of `seconds`; the last one may be shorter."""
        size = int(seconds * SAMPLE_RATE) * SAMPLE_BYTES
        while chunk := self._process.stdout.read(size):
            self.read_bytes += len(chunk)
            yield chunk
        self._finish()

    def _finish(self):
        code = self._process.wait()
        self._listener.join()
        self.total_s = self.read_s
        words = "; ".join(self.warnings) or f"ffmpeg ended with {code}"
        if any("matches no streams" in line for line in self._log):
            raise bad_input("no_audio", f"{self.path} has no audio track")
        if code != 0 or self.read_bytes == 0:
            raise bad_input(
                "bad_media", f"ffmpeg cannot decode {self.path}: {words.removeprefix(f'file:{self.path}: ')}"
            )
