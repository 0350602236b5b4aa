"""krait perplexity: the number, and that it knows where the text's beginning is."""
import math
import pathlib
import tempfile
import unittest

from command import MODEL, TEXT, krait, krait_json


class Perplexity(unittest.TestCase):
    def test_classics_on_alice(self):
        result = krait_json("perplexity", "-m", MODEL, "-f", TEXT)
        self.assertLessEqual({"bits_per_byte", "nll_per_token", "tokens"}, set(result))
        self.assertTrue(1.2 < result["bits_per_byte"] < 1.9, result)
        # Both figures say the same about the same text.
        bits = result["nll_per_token"] * (result["tokens"] - 1) / math.log(2)
        self.assertAlmostEqual(result["bits_per_byte"], bits / TEXT.stat().st_size, places=9)

    def test_state_is_carried_across_chunks(self):
        # A text is easier to go on with the second time, and what came long before still counts.
        chapter = TEXT.read_text(encoding="utf-8")[:8000]
        with tempfile.TemporaryDirectory() as folder:
            def bits(text):
                path = pathlib.Path(folder) / "text"
                path.write_text(text, encoding="utf-8")
                return krait_json("perplexity", "-m", MODEL, "-f", path)["bits_per_byte"]
            parts = [bits(chapter[i:i + 500]) for i in range(0, 8000, 500)]
            self.assertLess(bits(chapter), sum(parts) / len(parts))

    def test_table(self):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("It was the best of times, it was the worst of times.")
            file.flush()
            out = krait("perplexity", "-m", MODEL, "-f", file.name).stdout
        self.assertRegex(out, r"\A\d\.\d{4} bits per byte, \d\.\d{4} nats per token "
                              r"\(perplexity \d+\.\d\d\), \d+ tokens\n\Z")


if __name__ == "__main__":
    unittest.main()
