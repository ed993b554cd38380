"""Transcripts become files: txt, srt, vtt, json. Each file appears whole, by rename, or not at all.

Here too: which of them are already done. Not here: where a batch wants its files; it names the paths.
"""

import json
import os

from .failure import CRASH, Failure, bad_input
from .media import SUFFIXES


def default_paths(media, formats, output_dir=None):
    """Names derived from the media's: its stem, or its full name where a sibling has the same stem.

    `ep1.mp4` and `ep1.mkv` in one folder would otherwise overwrite each other's transcripts.
    """
    folder, name = os.path.split(media)
    stem, suffix = os.path.splitext(name)
    if any(is_media_sibling(other, stem, name) for other in os.listdir(folder or ".")):
        stem = name
    return {kind: os.path.join(output_dir or folder, f"{stem}.{kind}") for kind in formats}


def is_media_sibling(other, stem, name):
    other_stem, suffix = os.path.splitext(other)
    return other != name and other_stem == stem and suffix.lower() in SUFFIXES


def is_done(path, media):
    """Whether `path` was written after the media last changed. Files appear by rename, so existing is whole."""
    try:
        return os.stat(path).st_mtime_ns >= os.stat(media).st_mtime_ns
    except OSError:
        return False


def hidden_beside(path, suffix):
    """The name of a hidden file beside `path`."""
    folder, name = os.path.split(os.path.normpath(path))
    return os.path.join(folder, f".{name[:200]}.{suffix}")


def write_atomically(path, content):
    """Writes `content` to `path`: a temporary file beside it, fsync, rename, fsync of the folder."""
    folder = os.path.dirname(path)
    temporary = hidden_beside(path, f"{os.getpid()}.tmp")
    try:
        os.makedirs(folder, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        folder_handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder_handle)
        finally:
            os.close(folder_handle)
    except (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError) as error:
        raise bad_input("output_not_writable", f"cannot write {path}: {error.strerror}") from error
    except OSError as error:
        raise Failure(CRASH, "output_not_written", f"cannot write {path}: {error.strerror}") from error


def render(kind, transcript):
    """The text of one format."""
    return {"txt": as_txt, "srt": as_srt, "vtt": as_vtt, "json": as_json}[kind](transcript)


def clock(seconds, mark):
    """`3661.5` as `01:01:01,500`; `mark` is the decimal sign of the format."""
    ms = round(max(seconds, 0.0) * 1000)
    hours, ms = divmod(ms, 3_600_000)
    minutes, ms = divmod(ms, 60_000)
    return f"{hours:02}:{minutes:02}:{ms // 1000:02}{mark}{ms % 1000:03}"


def cue_text(segment):
    # An arrow would end the cue's text for most players.
    return segment.text.strip().replace("-->", "->")


def as_txt(transcript):
    return "".join(segment.text.strip() + "\n" for segment in transcript.segments)


def as_srt(transcript):
    return "".join(
        f"{number}\n{clock(segment.start, ',')} --> {clock(segment.end, ',')}\n{cue_text(segment)}\n\n"
        for number, segment in enumerate(transcript.segments, start=1)
    )


def as_vtt(transcript):
    return "WEBVTT\n\n" + "".join(
        f"{clock(segment.start, '.')} --> {clock(segment.end, '.')}\n{cue_text(segment)}\n\n"
        for segment in transcript.segments
    )


def as_json(transcript):
    document = {
        "schema_version": 1,
        "media": transcript.media,
        "duration_s": round(transcript.media_s, 3),
        "language": transcript.language,
        "script": transcript.script,
        "model": transcript.model,
        "text": transcript.text,
        "segments": [segment_object(number, segment) for number, segment in enumerate(transcript.segments)],
    }
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def segment_object(number, segment):
    shape = {"id": number, "start": round(segment.start, 3), "end": round(segment.end, 3), "text": segment.text.strip()}
    if segment.words is not None:
        shape["words"] = [
            {
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "word": word.text,
                "probability": round(word.probability, 4),
            }
            for word in segment.words
        ]
    return shape
