"""Bad input to the krait command: exit code 2, nothing on stdout, one clear line on stderr."""
import pathlib
import tempfile
import unittest

from command import MODEL, TINY, krait

GENERATE = ("generate", "-m", MODEL, "-p", "Once")

# Arguments, and what the line must say.
BAD = [
    (("nonsense",), "nonsense"),
    (("generate", "-p", "Once"), "--model is required"),
    ((*GENERATE, "-f", "also.txt"), "--prompt excludes --file"),
    (("generate", "-m", "/no/such", "-p", "Once"), "/no/such"),
    (("generate", "-m", MODEL), "give some text with -p or -f"),
    (("generate", "-m", MODEL, "-p", ""), "give some text with -p or -f"),
    (("generate", "-m", MODEL, "-f", "/no/such"), "/no/such: cannot be read"),
    (("generate", "-m", MODEL, "-f", MODEL), "expected a file, got a folder"),
    (("generate", "-m", TINY, "-p", "Once"), "tokenizer.json"),
    (("generate", "-m", MODEL, "-f", MODEL / "model.safetensors"), "is not UTF-8"),
    ((*GENERATE, "-n", "-1"), "--tokens"),
    ((*GENERATE, "-n", "many"), "--tokens"),
    ((*GENERATE, "--temp", "-1"), "temperature"),
    ((*GENERATE, "--top-p", "0"), "top_p"),
    ((*GENERATE, "--min-p", "2"), "min_p"),
    ((*GENERATE, "--repeat-penalty", "0"), "repetition_penalty"),
    ((*GENERATE, "--stop", ""), "stop"),
    ((*GENERATE, "--chunk", "0"), "--chunk"),
    ((*GENERATE, "--device", "cuda:7"), "cuda:7 is not here; there are: "),
    ((*GENERATE, "-t", "-3"), "--threads"),
    ((*GENERATE, "--state-in", "/no/such.state"), "/no/such.state"),
    ((*GENERATE, "--state-out", "/no/such/a.state"), "there is no folder /no/such"),
    (("verify", "-m", TINY, "--expected", "/no/such"), "/no/such"),
    (("verify", "-m", TINY, "--expected", MODEL / "tokenizer.json"), "tokenizer.json"),
    (("verify", "-m", TINY, "--tolerance", "small"), "--tolerance"),
    (("conform", "--op", "nonsense"), "nonsense"),
    (("conform", "--case", "nonsense"), "nonsense"),
    (("inspect",), "--model is required"),
    (("inspect", "-m", MODEL, "--tokens", "-4"), "--tokens"),
    (("bench",), "-m or --shape"),
    (("bench", "-m", MODEL, "--shape", "mamba-130m"), "excludes"),
    (("bench", "--shape", "mamba-9b"), "mamba-130m"),
    (("bench", "--shape", "mamba-130m", "--weights", "q9"), "q9"),
    (("bench", "-m", MODEL, "-t", "1,two"), "got two"),
    (("perplexity", "-m", MODEL), "--file is required"),
    (("perplexity", "-m", MODEL, "-f", "/no/such"), "/no/such: cannot be read"),
    (("perplexity", "-m", MODEL, "-f", "/dev/null"), "at least two tokens"),
    (("ops", "--json", "--markdown"), "excludes"),
]


class Errors(unittest.TestCase):
    def check(self, arguments, words):
        done = krait(*arguments, code=2)
        self.assertEqual("", done.stdout)
        self.assertRegex(done.stderr, r"\Akrait: [^\n]+\n\Z")
        self.assertIn(words, done.stderr)

    def test_bad_arguments(self):
        for arguments, words in BAD:
            with self.subTest(arguments=arguments):
                self.check(arguments, words)

    def test_broken_models(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            self.check(("inspect", "-m", path), "model.safetensors")
            (path / "model.safetensors").write_bytes(b"\xff" * 100)
            self.check(("inspect", "-m", path), "config.json")
            (path / "config.json").write_text('{"model_type": "mamba"')
            self.check(("inspect", "-m", path), "config.json")
            (path / "config.json").write_text('{"model_type": "llama"}')
            self.check(("inspect", "-m", path), "model.safetensors")
            whole = (TINY / "model.safetensors").read_bytes()
            (path / "model.safetensors").write_bytes(whole)
            self.check(("inspect", "-m", path), "llama")
            (path / "config.json").write_bytes((TINY / "config.json").read_bytes())
            krait("inspect", "-m", path)
            (path / "model.safetensors").write_bytes(whole[:len(whole) // 2])
            self.check(("inspect", "-m", path), "model.safetensors")

    def test_no_command_prints_the_help(self):
        done = krait(code=2)
        self.assertEqual("", done.stdout)
        for command in ("generate", "devices", "inspect", "verify", "conform", "bench",
                        "perplexity", "ops"):
            self.assertIn(f"\n  {command} ", done.stderr)


if __name__ == "__main__":
    unittest.main()
