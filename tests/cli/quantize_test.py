"""krait quantize: what it prints, what it writes, and that the other commands run the result."""
import pathlib
import tempfile
import unittest

from command import MODEL, PROMPT, TINY, krait, krait_json

GOLDEN = MODEL.parent.parent / "tests" / "golden" / "data" / "gguf" / "classics-mamba-Q4_K_M.gguf"


class Quantize(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.out = pathlib.Path(self.folder.name) / "out.gguf"

    def test_json_names_every_tensor(self):
        result = krait_json("quantize", MODEL, self.out, "--type", "q4_k")
        self.assertEqual({"file", "type", "bytes_before", "bytes", "tokenizer_problem", "tensors"},
                         set(result))
        self.assertEqual("", result["tokenizer_problem"])
        self.assertLess(result["bytes"], result["bytes_before"] / 2)
        tensors = {tensor["name"]: tensor for tensor in result["tensors"]}
        self.assertEqual({"name": "blk.3.ssm_in.weight", "shape": [1024, 256], "from": "bf16",
                          "to": "q4_k", "reason": ""}, tensors["blk.3.ssm_in.weight"])
        self.assertEqual("q6_k", tensors["token_embd.weight"]["to"])
        self.assertEqual("f16", tensors["blk.0.ssm_dt.weight"]["to"])
        self.assertIn("rows of 16", tensors["blk.0.ssm_dt.weight"]["reason"])
        self.assertEqual("f32", tensors["blk.9.ssm_a"]["to"])

    def test_text_has_a_line_per_kind_of_tensor(self):
        lines = krait("quantize", MODEL, self.out, "--type", "q8_0").stdout.splitlines()
        self.assertEqual(13, len(lines))
        self.assertTrue(any("blk.*.ssm_in.weight" in line and "x10" in line and
                            "bf16 -> q8_0" in line for line in lines), lines)
        self.assertIn("MB instead of", lines[-1])

    def test_the_result_runs(self):
        krait("quantize", MODEL, self.out, "--type", "q8_0")
        info = krait_json("inspect", "-m", self.out, "--device", "reference")
        self.assertEqual(("mamba", "q8_0", 10), (info["architecture"], info["weights"],
                                                 info["n_layer"]))
        done = krait("generate", "-m", self.out, "-p", PROMPT, "-n", 6, "--temp", 0,
                     "--device", "reference")
        self.assertTrue(done.stdout.startswith("'s voice\nwas"), done.stdout)

    def test_quantised_models_are_read_as_well(self):
        krait("quantize", GOLDEN, self.out, "--type", "f32")
        info = krait_json("inspect", "-m", self.out)
        self.assertEqual("f32", info["weights"])
        # Through f32 the weights stay what they were, and so does the text.
        text = [krait("generate", "-m", model, "-p", PROMPT, "-n", 6, "--temp", 0, "--device",
                      "reference").stdout for model in (GOLDEN, self.out)]
        self.assertEqual(text[0], text[1])

    def test_without_a_tokenizer_it_says_so(self):
        done = krait("quantize", TINY, self.out, "--type", "q8_0")
        self.assertIn("no tokenizer", done.stderr)
        self.assertTrue(self.out.exists())

    def test_errors_leave_nothing(self):
        self.assertIn("expected q8_0", krait("quantize", MODEL, self.out, "--type", "q3",
                                             code=2).stderr)
        self.assertIn("got i32", krait("quantize", MODEL, self.out, "--type", "i32", code=2).stderr)
        krait("quantize", MODEL, self.out, code=2)
        krait("quantize", self.out, self.out, "--type", "q8_0", code=2)
        krait("quantize", MODEL, self.out / "below", "--type", "q8_0", code=2)
        self.assertFalse(self.out.exists())


if __name__ == "__main__":
    unittest.main()
