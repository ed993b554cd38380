"""A real transcription gives way to a chatbot in its middle, goes on later, and nobody could tell from its files."""

import json
import os
import subprocess
import unittest

from machine import ROOT, Machine

FORMATS = ("txt", "srt", "vtt", "json")
# LLMs load in a moment here, and leave as soon as nobody needs them.
SETTINGS = {
    "script_dirs": [os.path.join(ROOT, "scripts")],
    "scripts": {
        "sphinx_transcribe": {"path": os.path.join(ROOT, "scripts", "sphinx_transcribe.py"), "host": "warm"},
    },
    "resource_manager": {
        "min_system_ram_mb": 0,
        "boot_times": {"demo-model": 1},
        "eviction_policy": {"min_residency_s": 0, "keep_last_s": 0, "chat_weight": 0.1},
    },
}


class GivingWay(Machine):
    SETTINGS = SETTINGS

    def setUp(self):
        super().setUp()
        talks = os.path.join(self.scratch, "talks")
        maker = os.path.join(ROOT, "scripts", "make_speech_videos")
        made = subprocess.run([maker, talks, "--count", "5", "--keywords"], capture_output=True, text=True, check=True)
        inputs = [os.path.join(talks, path) for path in json.loads(made.stdout)]
        # A pause after each: that is where it can be left.
        padded = "".join(f"[{n}:a]apad=pad_dur=1[p{n}];" for n in range(len(inputs)))
        joined = padded + "".join(f"[p{n}]" for n in range(len(inputs))) + f"concat=n={len(inputs)}:v=0:a=1"
        self.media = os.path.join(self.scratch, "long.wav")
        command = ["ffmpeg", "-nostdin", "-v", "error", *(word for path in inputs for word in ("-i", path))]
        subprocess.run([*command, "-filter_complex", joined, "-ac", "1", "-ar", "16000", self.media], check=True)

    def transcribe(self, name):
        outputs = {kind: os.path.join(self.scratch, name, f"long.{kind}") for kind in FORMATS}
        args = {"input": self.media, "outputs": outputs}
        self.drop(f"{name}.json", script="sphinx_transcribe", job_type="transcription", script_args=args)
        return outputs

    def progress_of(self, task_id):
        # The picture follows a moment later: it may still show the slot of the task before this one.
        slots = self.gpu()["slots"]
        return max((slot["progress"] or 0 for slot in slots if slot["task_id"] == task_id), default=0)

    def test_a_transcription_gives_way_to_a_chatbot_and_nothing_tells(self):
        whole = self.transcribe("whole")
        self.assertEqual(self.ended("whole")["status"], "complete")
        left = self.transcribe("left")
        self.wait_for("its first words", lambda: self.progress_of("left") > 0)
        self.drop("chat.json", prompt="Are you there?", job_type="chatbot")
        chat, record = self.ended("chat"), self.ended("left")
        self.assertEqual((chat["status"], record["status"]), ("complete", "complete"), (chat, record))
        self.assertLess(chat["completed_at"], record["completed_at"])
        self.assertEqual((record["attempt"], record["charged"]), (2, 1), record)
        self.assertEqual(record["history"][0]["error"]["code"], "yielded", record)
        self.assertLess(record["result"]["output"]["loads"], 3)
        for kind in FORMATS:
            with open(whole[kind], encoding="utf-8") as undisturbed, open(left[kind], encoding="utf-8") as disturbed:
                self.assertEqual(disturbed.read(), undisturbed.read(), kind)


if __name__ == "__main__":
    unittest.main()
