"""What the tests of the krait command share: running it, and the models of this repository."""
import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
KRAIT = pathlib.Path(os.environ["KRAIT_BINARY_DIR"]) / "bin" / "krait"
MODEL = ROOT / "assets" / "classics-mamba"
TINY = ROOT / "tests" / "golden" / "data" / "models" / "mamba-1"  # has no tokenizer
TEXT = ROOT / "tests" / "golden" / "data" / "carroll-alice.txt"

# The beginning that assets/classics-mamba/expected.safetensors has, and the greedy text after it:
# of a float64 implementation that is not Krait.
PROMPT = "It was a dark and stormy night, and the captain"
GREEDY = """'s voice
was heard.

"I am afraid I have not been here," said the officer, and the
other was the first to speak.

"I am not angry with"""


def krait(*arguments, code=0, device="cpu"):
    """Runs `krait` and checks its exit code. `device` is the one it uses unless told: by itself it
    would take a GPU where there is one. Nothing else that a developer may have exported counts."""
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("KRAIT_")}
    environment["KRAIT_DEVICE"] = device
    done = subprocess.run([KRAIT, *map(str, arguments)], capture_output=True, encoding="utf-8",
                          env=environment, timeout=110, check=False)
    if done.returncode != code:
        raise AssertionError(f"krait {' '.join(map(str, arguments))}: expected exit code {code}, "
                             f"got {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def krait_json(*arguments, code=0):
    return json.loads(krait(*arguments, "--json", code=code).stdout)
