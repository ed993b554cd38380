"""Utterances are cut at pauses, exactly in time, and no sample of speech is lost or heard twice."""

import array
import random
import unittest

import support  # noqa: F401  (puts scripts/ on the path)
from transcription.media import SAMPLE_RATE
from transcription.silence import FRAME_S, LONGEST_FRAMES, Utterances, seconds


def sound(duration_s, loudness):
    source = random.Random(7)
    return array.array(
        "h", (int(source.uniform(-loudness, loudness)) for _ in range(int(duration_s * SAMPLE_RATE)))
    ).tobytes()


def cut(samples, chunk_bytes=7_001 * 2, **options):
    utterances = Utterances(**options)
    found = []
    for at in range(0, len(samples), chunk_bytes):
        found += utterances.feed(samples[at : at + chunk_bytes])
    return [(round(start, 2), round(start + seconds(one), 2)) for start, one in [*found, *utterances.finish()]]


class Pauses(unittest.TestCase):
    def test_two_words_with_a_pause_between(self):
        (first, second) = cut(sound(1.0, 5) + sound(1.0, 8000) + sound(1.0, 5) + sound(1.0, 8000) + sound(1.0, 5))
        for (start, end), (spoken, until) in ((first, (1.0, 2.0)), (second, (3.0, 4.0))):
            self.assertTrue(spoken - 0.25 <= start <= spoken, first)
            self.assertTrue(until <= end <= until + 0.25, first)

    def test_silence_has_no_utterance(self):
        self.assertEqual(cut(sound(3.0, 5)), [])
        self.assertEqual(cut(b""), [])

    def test_a_short_pause_does_not_cut(self):
        self.assertEqual(len(cut(sound(1.0, 8000) + sound(0.3, 5) + sound(1.0, 8000))), 1)

    def test_the_floor_follows_a_noisy_recording(self):
        found = cut(sound(20.0, 600) + sound(1.0, 12_000) + sound(2.0, 600))
        self.assertTrue(20.5 <= found[-1][1] <= 21.3, found)

    def test_endless_speech_is_cut_without_a_gap(self):
        pieces = cut(sound(40.0, 8000), keep_silence=True)
        self.assertGreaterEqual(len(pieces), 3)
        self.assertEqual((pieces[0][0], pieces[-1][1]), (0.0, 40.0))
        for (_, end), (start, _) in zip(pieces, pieces[1:]):
            self.assertEqual(end, start)
        self.assertLessEqual(max(end - start for start, end in pieces), LONGEST_FRAMES * FRAME_S)
