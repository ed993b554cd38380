"""What a task may ask for: every refusal names the argument and the way out."""

import unittest

import support  # noqa: F401  (puts scripts/ on the path)
from transcription import arguments
from transcription.failure import Failure, classify
from transcription.job import Recogniser


class Listener(Recogniser):
    name = "listener"
    default_model = "small"
    settings = {"beam_size": arguments.whole_number(1)}


class Arguments(unittest.TestCase):
    def parse(self, **args):
        return arguments.parse(args, Listener())

    def refused(self, **args):
        with self.assertRaises(Failure) as raised:
            self.parse(**args)
        self.assertEqual(raised.exception.kind, "bad_input")
        return raised.exception.code, raised.exception.message

    def test_null_is_not_given(self):
        request = self.parse(input="/m/a.webm", language=None, outputs=None, formats=None, beam_size=None, model=None)
        self.assertEqual((request.formats, request.outputs, request.settings), (arguments.FORMATS, {}, {}))
        self.assertTrue(request.vad_filter)

    def test_own_settings_are_kept(self):
        self.assertEqual(self.parse(input="/m/a.webm", beam_size=3, model="small").settings, {"beam_size": 3})

    def test_unknown_names_get_a_suggestion(self):
        code, message = self.refused(input="/m/a.webm", beam_sise=3)
        self.assertEqual(code, "unknown_argument")
        self.assertIn("did you mean `beam_size`?", message)

    def test_bad_values_are_named(self):
        for args, name in (
            ({}, "input"),
            ({"input": "a.webm"}, "input"),
            ({"input": "/m/a.webm", "beam_size": 0}, "beam_size"),
            ({"input": "/m/a.webm", "beam_size": True}, "beam_size"),
            ({"input": "/m/a.webm", "overwrite": "yes"}, "overwrite"),
            ({"input": "/m/a.webm", "formats": ["doc"]}, "formats"),
            ({"input": "/m/a.webm", "outputs": {"doc": "/m/a.doc"}}, "outputs"),
            ({"input": "/m/a.webm", "outputs": {"txt": "a.txt"}}, "outputs.txt"),
            ({"input": "/m/a.webm", "outputs": {"txt": "/m/a.x", "srt": "/m/./a.x"}}, "same path"),
            ({"input": "/m/a.webm", "outputs": {"txt": "/m/../m/a.webm"}}, "the media itself"),
        ):
            with self.subTest(args=args):
                self.assertIn(name, self.refused(**args)[1])

    def test_another_model_than_the_loaded_one(self):
        self.assertEqual(self.refused(input="/m/a.webm", model="large-v3")[0], "wrong_model")

    def test_formats_as_a_list_or_as_words(self):
        self.assertEqual(self.parse(input="/m/a", formats="srt, txt,srt").formats, ("srt", "txt"))
        self.assertEqual(self.parse(input="/m/a", formats=["all"]).formats, arguments.FORMATS)


class Classes(unittest.TestCase):
    def test_what_the_engines_say_when_memory_ends(self):
        for error in (
            MemoryError(),
            RuntimeError("CUDA failed with error out of memory"),
            RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"),
        ):
            self.assertEqual(classify(error).kind, "oom", error)

    def test_anything_else_is_a_crash_with_its_name(self):
        failure = classify(KeyError("x"))
        self.assertEqual((failure.kind, failure.code), ("crash", "KeyError"))
