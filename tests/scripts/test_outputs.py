"""The formats, their times, and when a file counts as done."""

import json
import os

from support import Workplace, touch
from transcription import outputs
from transcription.failure import Failure
from transcription.job import Segment, Transcript, Word

TALK = Transcript(
    "/m/talk.webm", 3700.0, "en", "sphinx_transcribe", "en-us",
    [
        Segment(0.0, 1.2344, " hello there ", [Word(0.0, 0.5, "hello", 0.9), Word(0.5, 1.2344, "there", 0.8)]),
        Segment(3661.5, 3662.9996, "a --> b"),
    ],
)  # fmt: skip
NOTHING = Transcript("/m/quiet.webm", 5.0, "en", "sphinx_transcribe", "en-us")


class Formats(Workplace):
    def test_clock(self):
        self.assertEqual(outputs.clock(0, ","), "00:00:00,000")
        self.assertEqual(outputs.clock(59.9996, ","), "00:01:00,000")
        self.assertEqual(outputs.clock(3661.5, "."), "01:01:01.500")
        self.assertEqual(outputs.clock(360_000, "."), "100:00:00.000")
        self.assertEqual(outputs.clock(-0.02, "."), "00:00:00.000")

    def test_srt(self):
        self.assertEqual(
            outputs.render("srt", TALK),
            "1\n00:00:00,000 --> 00:00:01,234\nhello there\n\n2\n01:01:01,500 --> 01:01:03,000\na -> b\n\n",
        )

    def test_vtt(self):
        self.assertEqual(
            outputs.render("vtt", TALK),
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.234\nhello there\n\n01:01:01.500 --> 01:01:03.000\na -> b\n\n",
        )

    def test_txt(self):
        self.assertEqual(outputs.render("txt", TALK), "hello there\na --> b\n")

    def test_json(self):
        document = json.loads(outputs.render("json", TALK))
        self.assertEqual(document["schema_version"], 1)
        self.assertEqual(document["text"], "hello there a --> b")
        self.assertEqual(
            document["segments"][0]["words"][1], {"start": 0.5, "end": 1.234, "word": "there", "probability": 0.8}
        )
        self.assertNotIn("words", document["segments"][1])

    def test_nothing_heard(self):
        self.assertEqual([outputs.render(kind, NOTHING) for kind in ("txt", "srt", "vtt")], ["", "", "WEBVTT\n\n"])


class Files(Workplace):
    def make(self, name):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "w").close()
        return path

    def test_done_means_not_older_than_the_media(self):
        media, text = self.make("a/media.webm"), self.make("a/media.txt")
        self.assertTrue(outputs.is_done(text, media))
        touch(media, ahead_s=5)
        self.assertFalse(outputs.is_done(text, media))
        self.assertFalse(outputs.is_done(self.path("a/none.txt"), media))

    def test_written_whole_and_nothing_else_left(self):
        path = self.path("new", "folder", "x.txt")
        outputs.write_atomically(path, "one\n")
        outputs.write_atomically(path, "two\n")
        with open(path) as file:
            self.assertEqual(file.read(), "two\n")
        self.assertEqual(os.listdir(os.path.dirname(path)), ["x.txt"])

    def test_a_failed_write_leaves_nothing(self):
        os.makedirs(self.path("taken", "x.txt", "inside"))
        with self.assertRaises(Failure) as raised:
            outputs.write_atomically(self.path("taken", "x.txt"), "text")
        self.assertEqual((raised.exception.kind, raised.exception.code), ("bad_input", "output_not_writable"))
        self.assertEqual(os.listdir(self.path("taken")), ["x.txt"])

    def test_equal_stems_in_one_folder_keep_their_full_names(self):
        for name in ("s/ep1.mp4", "s/ep1.mkv", "s/ep2.mp4", "s/ep2.nfo"):
            self.make(name)
        names = {
            kind: os.path.basename(outputs.default_paths(self.path("s", kind), ["srt"])["srt"])
            for kind in os.listdir(self.path("s"))
        }
        self.assertEqual(
            (names["ep1.mp4"], names["ep1.mkv"], names["ep2.mp4"]), ("ep1.mp4.srt", "ep1.mkv.srt", "ep2.srt")
        )
