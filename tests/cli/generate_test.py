"""krait generate: what goes where, and that a text does not depend on how it came about."""
import pathlib
import re
import tempfile
import unittest

from command import GREEDY, MODEL, PROMPT, krait, krait_json


def text_of(*arguments):
    """The generated text: stdout less the line end that closes it."""
    out = krait("generate", "-m", MODEL, *arguments).stdout
    if not out.endswith("\n"):
        raise AssertionError("stdout does not end with a line end")
    return out[:-1]


class Generate(unittest.TestCase):
    def test_greedy_text_is_that_of_the_reference_and_all_of_stdout(self):
        done = krait("generate", "-m", MODEL, "-p", PROMPT, "-n", 40)
        self.assertEqual(GREEDY + "\n", done.stdout)
        for word in ("device", "kernels", "tokens/s", "stopped at length"):
            self.assertIn(word, done.stderr)

    def test_json_holds_the_same_text_and_the_figures(self):
        result = krait_json("generate", "-m", MODEL, "-p", PROMPT, "-n", 40)
        self.assertEqual(GREEDY, result["text"])
        self.assertEqual((14, 40, "length"), (result["prompt_tokens"], result["generated_tokens"],
                                              result["stopped"]))
        self.assertGreater(result["tokens_per_second"], 0)
        self.assertGreater(result["prompt_tokens_per_second"], 0)
        self.assertEqual("cpu", result["device"])
        self.assertIn("selective_scan", result["kernels"])
        self.assertIn("seed", result)

    def test_prompt_from_a_file(self):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(PROMPT)
            file.flush()
            self.assertEqual(GREEDY, text_of("-f", file.name, "-n", 40))

    def test_prompt_in_chunks(self):
        self.assertEqual(GREEDY, text_of("-p", PROMPT, "-n", 40, "--chunk", 5))

    def test_no_tokens(self):
        self.assertEqual("", text_of("-p", PROMPT, "-n", 0))

    def test_same_seed_same_text(self):
        sampled = [text_of("-p", PROMPT, "-n", 30, "--temp", 1, "--seed", seed)
                   for seed in (7, 7, 8)]
        self.assertEqual(sampled[0], sampled[1])
        self.assertNotEqual(sampled[0], sampled[2])

    def test_stops_before_a_stop_string(self):
        before = GREEDY[:GREEDY.index("afraid")]
        result = krait_json("generate", "-m", MODEL, "-p", PROMPT, "-n", 40, "--stop", "no such",
                            "--stop", "afraid")
        self.assertEqual((before, "stop string"), (result["text"], result["stopped"]))
        self.assertLess(result["generated_tokens"], 40)
        self.assertEqual(before, text_of("-p", PROMPT, "-n", 40, "--stop", "afraid"))

    def test_text_made_on_the_device_is_that_of_single_steps(self):
        # With --state-out the text is made step by step; the state has then seen the last token.
        with tempfile.TemporaryDirectory() as folder:
            steps = ("--state-out", pathlib.Path(folder) / "a.state")
            for device in ("cpu", "reference"):
                for options, ahead in ((("-n", 40), 1), (("-n", 1), 1),
                                       (("-n", 40, "--stop", "afraid"), 0)):
                    with self.subTest(device=device, options=options):
                        common = ("generate", "-m", MODEL, "-p", PROMPT, "--device", device,
                                  *options)
                        whole, stepped = krait_json(*common), krait_json(*common, *steps)
                        for key in ("text", "stopped", "generated_tokens"):
                            self.assertEqual(stepped[key], whole[key])
                        self.assertEqual(stepped["position"], whole["position"] + ahead)

    def test_progress_of_a_long_prompt(self):
        # A bar appears after a second: the prompt grows until this machine is busy for longer.
        repeats, seconds = 6, 0
        while seconds < 1.5:
            done = krait("generate", "-m", MODEL, "-p", PROMPT * repeats, "-n", 0, "--chunk", 4,
                         "--device", "reference")
            tokens, rate = re.search(r"prompt (\d+) tokens, ([\d.]+) tokens/s", done.stderr).groups()
            seconds = int(tokens) / float(rate)
            repeats *= 3
        self.assertRegex(done.stderr, rf"prompt: +\d+ % \(\d+ of {tokens}, \d+ s left\)")
        self.assertEqual("\n", done.stdout)

    def test_device_of_the_environment(self):
        done = krait("generate", "-m", MODEL, "-p", "Once", "-n", 1, device="reference")
        self.assertIn("device reference", done.stderr)


# The prompt, cut between two words so that the tokens stay the same.
FIRST, SECOND = PROMPT[:24], PROMPT[24:]


class States(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.state = pathlib.Path(folder.name) / "a.state"

    def continued(self, first, second, *options):
        krait("generate", "-m", MODEL, "-p", first, "-n", 0, "--state-out", self.state, *options)
        return text_of("-p", second, "-n", 40, "--state-in", self.state)

    def test_continues_as_if_the_text_had_been_read_at_once(self):
        self.assertEqual(GREEDY, self.continued(FIRST, SECOND))

    def test_state_of_another_device(self):
        self.assertEqual(GREEDY, self.continued(FIRST, SECOND, "--device", "reference"))

    def test_state_after_generated_text(self):
        # The state has seen the prompt and all that was printed.
        half = GREEDY[:GREEDY.index(" said")]
        written = krait_json("generate", "-m", MODEL, "-p", PROMPT, "-n", 40, "--stop", " said",
                             "--state-out", self.state)
        self.assertEqual(half, written["text"])
        again = krait_json("generate", "-m", MODEL, "-p", PROMPT + half, "-n", 0)
        self.assertEqual(again["position"], written["position"])

    def test_state_file_of_another_model_is_refused(self):
        self.state.write_bytes((MODEL / "expected.safetensors").read_bytes())
        done = krait("generate", "-m", MODEL, "-p", "x", "--state-in", self.state, code=2)
        self.assertIn("expected a state file", done.stderr)


if __name__ == "__main__":
    unittest.main()
