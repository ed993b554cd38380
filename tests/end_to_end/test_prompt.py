"""An LLM task through the real brain, a real worker and the real embedded engine."""

import subprocess
import unittest

from machine import PATIENCE_S, Machine, alive


class OnePrompt(Machine):
    def test_a_dropped_prompt_boots_the_engine_and_the_next_one_finds_it_loaded(self):
        self.assertEqual(self.gpu()["state"], "idle")

        self.drop("question.json", prompt="Why is the sky blue?")
        record = self.ended("question")
        self.assertEqual(record["status"], "complete", record)
        self.assertIn("demonstration model", record["result"]["output"])
        self.assertEqual((record["result"]["model"], record["result"]["engine"]), ("demo-model", "embedded"))
        self.assertEqual((record["assigned_gpu"], record["assigned_gpu_uuid"]), ("0", "SIM-0"))
        self.assertLessEqual(record["created_at"], record["started_at"])
        self.assertLessEqual(record["started_at"], record["completed_at"])
        self.assertEqual(record["attempt"], 1)

        ready = self.wait_for("llm_ready", lambda: self.gpu()["state"] == "llm_ready" and self.gpu())
        states = [state for state, _ in ready["transitions"]]
        self.assertEqual([state for state in states if state != "llm_ready"], ["idle", "booting_llm", "llm_busy"])

        self.drop("again.json", prompt="And why is it dark at night?")
        self.assertEqual(self.ended("again")["status"], "complete")
        again = self.wait_for("llm_ready", lambda: self.gpu()["state"] == "llm_ready" and self.gpu())
        self.assertEqual(again["pid"], ready["pid"], "the engine was booted again")
        self.assertEqual([resident["loads"] for resident in again["residents"]], [1])

        down = self.start("gpuspool", "down", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.assertEqual(down.wait(timeout=PATIENCE_S), 0)
        self.assertEqual(self.brain.wait(timeout=PATIENCE_S), 0, self.words_of_the_brain())
        for pid in (again["pid"], again["worker_pid"]):
            self.assertFalse(alive(pid), f"process {pid} outlived `gpuspool down`")

    def test_a_model_that_is_not_there_fails_its_task_at_once(self):
        self.drop("absent.json", prompt="Anybody?", model="no-such-model")
        record = self.ended("absent")
        self.assertEqual((record["status"], record["error"]["code"]), ("failed", "model_not_found"), record)
        self.assertEqual(record["error"]["class"], "bad_input")


if __name__ == "__main__":
    unittest.main()
