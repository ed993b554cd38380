"""Every planted bug still fits the source it is planted in; planting them takes long and is done by hand."""

import subprocess
import sys
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "planted_bugs"


class PlantedBugs(unittest.TestCase):
    def run_script(self, *words):
        return subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True)

    def test_each_fits_its_source(self):
        done = self.run_script("--check")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_there_are_a_dozen_at_least(self):
        self.assertGreaterEqual(len(self.run_script("--list").stdout.splitlines()), 12)

    def test_an_unknown_name_is_a_usage_error(self):
        self.assertEqual(self.run_script("no_such_bug").returncode, 64)


if __name__ == "__main__":
    unittest.main()
