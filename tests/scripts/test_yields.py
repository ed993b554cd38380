"""A transcription that is left at a boundary and gone on from: the same files as if it had never been left."""

import os

from support import SPHINX, Host, Workplace, read, touch

FORMATS = ("txt", "srt", "vtt", "json")


class Left(Workplace):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        talks = list(cls.videos("talks", "--count", "4", "--short"))
        inputs = [word for talk in talks for word in ("-i", talk)]
        # A pause after each: that is where it can be left.
        padded = "".join(f"[{n}:a]apad=pad_dur=1[p{n}];" for n in range(len(talks)))
        joined = padded + "".join(f"[p{n}]" for n in range(len(talks))) + f"concat=n={len(talks)}:v=0:a=1"
        cls.media = cls.ffmpeg("long.wav", *inputs, "-filter_complex", joined, "-ac", "1", "-ar", "16000")
        with Host(SPHINX) as host:
            host.next()
            host.result("whole", input=cls.media, outputs=cls.named("whole"))

    @classmethod
    def named(cls, name):
        return {kind: cls.path(name, f"long.{kind}") for kind in FORMATS}

    def setUp(self):
        self.outputs = self.named(self._testMethodName)
        self.partial = self.path(self._testMethodName, ".long.txt.partial")

    def host(self):
        host = self.enterContext(Host(SPHINX))
        host.next()
        return host

    def leave(self, host, attempt=1, checkpoint=None):
        """Runs it until it is further than it was, asks it to leave, and returns progress and state."""
        host.give("long", attempt, checkpoint, input=self.media, outputs=self.outputs)
        before = checkpoint["media_s"] if checkpoint else 0.0
        told = []
        while not told or told[-1].get("media_s", 0.0) <= before:
            told.append(host.next())
        host.say({"yield": {"task_id": "long", "attempt": attempt}})
        progress, last = host.answer("long", attempt)
        self.assertEqual(last["event"], "yielded", last)
        return [event for event in told if event["event"] == "progress"] + progress, last["state"]

    def assert_whole(self):
        for kind in FORMATS:
            self.assertEqual(read(self.outputs[kind]), read(self.path("whole", f"long.{kind}")), kind)
        self.assertFalse(os.path.exists(self.partial))

    def test_it_goes_on_where_it_was_left_and_nothing_tells(self):
        host = self.host()
        first, state = self.leave(host)
        self.assertEqual(os.listdir(os.path.dirname(self.partial)), [os.path.basename(self.partial)])
        self.assertLess(len(str(state)), 1_000)
        second, state_2 = self.leave(host, 2, state)
        self.assertGreater(state_2["media_s"], state["media_s"])
        # Another process: whatever it needs lies in the file and in the state.
        host = self.host()
        host.give("long", 3, state_2, input=self.media, outputs=self.outputs)
        third, answer = host.answer("long", 3)
        self.assertEqual((answer["event"], answer["result"]["loads"]), ("result", 1))
        rises = [event["percent"] for event in first + second + third]
        self.assertEqual(rises, sorted(rises))
        self.assertEqual(rises[-1], 100.0)
        self.assert_whole()

    def test_a_state_that_a_dead_host_had_told_is_as_good(self):
        host = self.host()
        host.give("long", input=self.media, outputs=self.outputs)
        event = host.next()
        while event["event"] != "checkpoint":
            event = host.next()
        host.process.kill()
        host = self.host()
        host.give("long", 2, event["state"], input=self.media, outputs=self.outputs)
        self.assertEqual(host.answer("long", 2)[1]["event"], "result")
        self.assert_whole()

    def test_a_state_that_does_not_fit_means_from_the_beginning(self):
        host = self.host()
        _, state = self.leave(host)
        # What was left, damaged in one way after the other.
        for attempt, strange in enumerate(
            ({}, [], "no state", state | {"bytes": 10**9}, state | {"media": [1, 2]}, state | {"at": None}), start=2
        ):
            host.give("long", attempt, strange, input=self.media, outputs=self.outputs, formats=["txt"])
            self.assertEqual(host.answer("long", attempt)[1]["event"], "result", strange)
            self.assert_whole()
            for path in self.outputs.values():
                os.unlink(path)

    def test_media_that_has_changed_is_heard_anew(self):
        host = self.host()
        _, state = self.leave(host)
        touch(self.media, -100)
        host.give("long", 2, state, input=self.media, outputs=self.outputs)
        progress, _ = host.answer("long", 2)
        self.assertLess(progress[0]["media_s"], state["media_s"])
        self.assert_whole()


if __name__ == "__main__":
    import unittest

    unittest.main()
