"""The two commands of the README, as far as they can be tested without doing all that they do."""

import importlib.machinery
import importlib.util
import os
import subprocess
import tempfile
import unittest

from support import PATIENCE_S, ROOT

DEMO = os.path.join(ROOT, "scripts", "demo")
TEST = os.path.join(ROOT, "scripts", "test")


def load(path):
    """A Python script without an ending, as a module; nothing is left beside it."""
    loader = importlib.machinery.SourceFileLoader(os.path.basename(path), path)
    loader.set_data = lambda *_, **__: None
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def at(second, state):
    return [state, f"2026-11-21T23:00:{second:012.9f}Z"]


class Demo(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.demo = load(DEMO)

    def test_only_new_transitions_are_told(self):
        before = [at(1, "idle"), at(2, "booting_llm")]
        for now, new in (
            (before, []),
            # Drawn again, the same instants differ by a hair.
            ([at(1.0004, "idle"), at(2.0001, "booting_llm"), at(3, "llm_ready")], [at(3, "llm_ready")]),
            # The oldest has fallen out of the window.
            ([at(2, "booting_llm"), at(3, "llm_ready")], [at(3, "llm_ready")]),
            # All of it is new: more happened between two looks than the window holds.
            ([at(7, "llm_busy"), at(8, "llm_ready")], [at(7, "llm_busy"), at(8, "llm_ready")]),
        ):
            self.assertEqual(self.demo.unseen(before, now), new, now)
        self.assertEqual(self.demo.unseen([], before), before)

    def test_what_repeats_itself_is_said_once(self):
        for states, said in (
            ([], ""),
            (["idle"], "idle"),
            (["idle", "cooling", "idle"], "idle → cooling → idle"),
            (["idle"] + ["busy", "idle"] * 3 + ["cooling"], "(idle → busy) ×3 → idle → cooling"),
        ):
            self.assertEqual(self.demo.journey(states), said)

    def test_without_cargo_it_says_what_is_lacking(self):
        with tempfile.TemporaryDirectory() as empty:
            python = os.path.join(empty, "python3")
            os.symlink(os.path.realpath(os.sys.executable), python)
            done = subprocess.run(
                [python, DEMO], env={"PATH": empty}, capture_output=True, text=True, timeout=PATIENCE_S
            )
        self.assertEqual(done.returncode, 69)
        self.assertIn("there is no cargo: install Rust", done.stderr)


class Test(unittest.TestCase):
    def tally(self, log):
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
            file.write(log)
            file.flush()
            only = 'source <(sed -n "/^tally()/,/^}/p" "$1"); tally "$2"'
            return subprocess.check_output(["bash", "-c", only, "-", TEST, file.name], text=True).split()

    def test_it_counts_what_cargo_and_python_say(self):
        for log, counted in (
            ("", ["0", "0"]),
            ("test result: ok. 14 passed; 0 failed; 0 ignored; 0 measured\n" * 2, ["28", "0"]),
            ("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured\n", ["3", "2"]),
            ("Ran 5 tests in 0.1s\n\nOK\n", ["5", "0"]),
            ("Ran 1 test in 0.1s\n\nOK (skipped=1)\n", ["0", "0"]),
            ("Ran 0 tests in 1s\n\nFAILED (errors=2)\n", ["0", "2"]),
            ("Ran 7 tests in 3s\n\nFAILED (failures=1, errors=2, skipped=1)\n", ["3", "3"]),
        ):
            self.assertEqual(self.tally(log), counted, log)


if __name__ == "__main__":
    unittest.main()
