"""The keys that --json promises, and the exit codes that go with them. Others build on these."""
import unittest

from command import MODEL, ROOT, TINY, krait, krait_json

FALCON = ROOT / "tests" / "golden" / "data" / "models" / "falcon-mamba-1"


class Verify(unittest.TestCase):
    def check(self, *arguments, code=0):
        result = krait_json("verify", "-m", *arguments, code=code)
        self.assertLessEqual({"device", "modes", "greedy_equal"}, set(result))
        self.assertEqual(["prefill", "chunks", "steps"], [m["mode"] for m in result["modes"]])
        for mode in result["modes"]:
            self.assertEqual({"mode", "activations", "max_abs", "rel_l2"}, set(mode))
            self.assertIn(mode["activations"], ("exact", "native"))
            self.assertTrue(0 < mode["rel_l2"] < 1e-5, mode)
        return result

    def test_models_pass(self):
        for model in (MODEL, TINY, FALCON):
            with self.subTest(model=model.name):
                result = self.check(model)
                self.assertEqual("cpu", result["device"])
                self.assertIs(result["greedy_equal"], True)

    def test_reference_is_named(self):
        self.assertEqual("reference", self.check(TINY, "--device", "reference")["device"])

    def test_beyond_the_tolerance(self):
        self.check(TINY, "--tolerance", "1e-30", code=1)
        done = krait("verify", "-m", TINY, "--tolerance", "1e-30", code=1)
        self.assertIn("BEYOND THE TOLERANCE", done.stdout)

    def test_expectation_of_another_model(self):
        # The wrong numbers are a verdict; what cannot be compared at all is an error.
        other = ROOT / "tests" / "golden" / "data" / "models" / "mamba-bias-n8-1"
        result = krait_json("verify", "-m", TINY, "--expected", other / "expected.safetensors",
                            code=1)
        self.assertGreater(result["modes"][0]["rel_l2"], 0.1)
        krait("verify", "-m", TINY, "--expected", MODEL / "expected.safetensors", code=2)


class Activations(unittest.TestCase):
    def test_native_is_asked_for_and_named(self):
        native = ("-m", MODEL, "--device", "cpu", "--activations", "native")
        result = krait_json("verify", *native)
        self.assertEqual({"native"}, {mode["activations"] for mode in result["modes"]})
        self.assertTrue(all(mode["rel_l2"] < 2e-2 for mode in result["modes"]), result)
        self.assertEqual("native", krait_json("inspect", *native)["activations"])
        self.assertIn("rows of logits, native\n", krait("inspect", *native, "--plan").stdout)
        self.assertIn("activations native", krait("generate", *native, "-p", "It", "-n", 1).stderr)
        rows = krait_json("bench", *native, "-p", 4, "-n", 0, "-r", 1)
        self.assertEqual(["native"], [row["activations"] for row in rows])

    def test_exact_is_the_default(self):
        self.assertEqual("exact", krait_json("inspect", "-m", TINY)["activations"])
        krait("inspect", "-m", TINY, "--activations", "half", code=2)


class Conform(unittest.TestCase):
    KEYS = {"op", "device", "kernel", "dtype", "case", "error", "tolerance", "verdict", "reason"}

    def test_one_op_on_every_device(self):
        result = krait_json("conform", "--op", "softplus")
        self.assertEqual({"cases", "passed", "failed", "unsupported"}, set(result))
        counts = {"pass": 0, "fail": 0, "unsupported": 0}
        for case in result["cases"]:
            self.assertEqual(self.KEYS, set(case))
            self.assertEqual("softplus", case["op"])
            counts[case["verdict"]] += 1
            self.assertEqual(case["verdict"] == "pass", case["reason"] == "", case)
        self.assertEqual((counts["pass"], 0, counts["unsupported"]),
                         (result["passed"], result["failed"], result["unsupported"]))
        self.assertLessEqual({"cpu", "reference"}, {case["device"] for case in result["cases"]})
        self.assertGreater(result["passed"], 0)

    def test_unsupported_is_not_passed(self):
        # The CPU keeps activations in float32 and says so.
        result = krait_json("conform", "--op", "softplus", "--device", "cpu")
        half = [case for case in result["cases"] if case["dtype"] == "f16"]
        self.assertTrue(half)
        for case in half:
            self.assertEqual("unsupported", case["verdict"])
            self.assertIn("f16", case["reason"])

    def test_devices_that_are_not_there(self):
        for devices in ("cuda:9", "cpu,nonsense"):
            done = krait("conform", "--device", devices, "--op", "neg", code=1)
            self.assertIn("is not here", done.stderr)
            self.assertEqual("", done.stdout)

    def test_ops_that_are_not_there(self):
        krait("conform", "--op", "nonsense", code=2)


class Bench(unittest.TestCase):
    KEYS = {"model", "device", "weights", "activations", "threads", "test", "batch",
            "tokens_per_second", "sd", "bytes_per_token", "bandwidth_fraction", "load_seconds",
            "load_bytes_per_second"}
    NODE = {"op", "kernel", "shapes", "count", "seconds", "bytes", "flops", "bandwidth_fraction"}

    def test_devices_side_by_side(self):
        rows = krait_json("bench", "-m", TINY, "--device", "cpu,reference", "-p", 8, "-n", 4,
                          "-r", 2, "-t", 1)
        self.assertEqual([("cpu", "pp8"), ("cpu", "tg4"), ("reference", "pp8"),
                          ("reference", "tg4")], [(row["device"], row["test"]) for row in rows])
        for row in rows:
            self.assertEqual(self.KEYS, set(row))
            self.assertGreater(row["tokens_per_second"], 0)
            self.assertGreater(row["bytes_per_token"], 0)
            self.assertEqual(("mamba-1", "exact"), (row["model"], row["activations"]))

    def test_markdown(self):
        done = krait("bench", "-m", TINY, "-p", 8, "-n", 0, "-r", 1)
        lines = done.stdout.splitlines()
        self.assertEqual(3, len(lines))
        self.assertIn("| pp8 |", lines[2])
        self.assertEqual({line.count("|") for line in lines}, {lines[0].count("|")})
        self.assertRegex(done.stderr, r"cpu: weights in place after \d\.\d+ s, \d+\.\d+ GB/s")

    def test_profile(self):
        rows = krait_json("bench", "-m", TINY, "--device", "cpu,reference", "-p", 8, "-n", 4,
                          "-b", "1,3", "-r", 2, "-t", 1, "--profile")
        self.assertEqual([("pp8", 1), ("tg4", 1), ("tg4", 3)] * 2,
                         [(row["test"], row["batch"]) for row in rows])
        for row in rows:
            self.assertEqual(self.KEYS | {"profile"}, set(row))
            self.assertEqual({"run_seconds", "nodes"}, set(row["profile"]))
            self.assertGreater(row["profile"]["run_seconds"], 0)
            nodes = row["profile"]["nodes"]
            for node in nodes:
                self.assertEqual(self.NODE, set(node))
                self.assertEqual(row["device"] == "cpu", node["bandwidth_fraction"] is not None)
            self.assertEqual(row["test"] == "tg4", "argmax" in {node["op"] for node in nodes})
            # One line per kernel and shape.
            names = [(node["op"], node["kernel"], node["shapes"]) for node in nodes]
            self.assertEqual(len(names), len(set(names)))

    def test_profile_as_tables(self):
        out = krait("bench", "-m", TINY, "-p", 8, "-n", 4, "-r", 1, "--profile").stdout
        tables = out.rstrip("\n").split("\n\n")
        self.assertEqual(2, len(tables))
        for title, table in zip(("pp8, batch 1", "tg4, batch 1"), tables):
            lines = table.splitlines()
            self.assertIn(title, lines[0])
            self.assertEqual(1, len({line.count("|") for line in lines[1:]}))
            self.assertIn("| nodes together |", lines[-2])
            self.assertIn("| one run |", lines[-1])

    def test_published_shape(self):
        rows = krait_json("bench", "--shape", "mamba-130m", "--weights", "bf16", "-p", 0, "-n", 2,
                          "-r", 1)
        self.assertEqual([("mamba-130m", "bf16", "tg2")],
                         [(row["model"], row["weights"], row["test"]) for row in rows])


class Others(unittest.TestCase):
    def test_devices(self):
        devices = krait_json("devices")["devices"]
        self.assertLessEqual({"cpu", "reference"}, {device["name"] for device in devices})
        for device in devices:
            self.assertEqual({"name", "backend", "description", "memory"}, set(device))
        listed = krait("devices").stdout
        self.assertEqual(len(devices), len(listed.splitlines()))
        self.assertEqual(listed, krait("--list-devices").stdout)

    def test_inspect(self):
        result = krait_json("inspect", "-m", MODEL, "--graph", "--dot", "--plan")
        self.assertEqual(("classics-mamba", "mamba", 256, 10, 4096, 5428992, "bf16", "cpu"),
                         tuple(result[key] for key in (
                             "name", "architecture", "d_model", "n_layer", "vocab_size",
                             "parameters", "weights", "device")))
        self.assertGreater(result["packed_bytes"], 0)
        self.assertTrue(result["graph"].startswith("graph mamba {"))
        self.assertTrue(result["dot"].startswith("digraph"))
        self.assertIn("arena", result["plan"])
        bare = krait_json("inspect", "-m", MODEL)
        self.assertEqual(set(bare), set(result) - {"graph", "dot", "plan"})

    def test_inspect_shows_what_the_passes_did(self):
        raw = krait("inspect", "-m", TINY, "--graph", "--raw").stdout
        fused = krait("inspect", "-m", TINY, "--graph").stdout
        self.assertIn("softplus(", raw)
        self.assertNotIn("softplus(", fused)
        self.assertIn("dt_softplus = 1", fused)

    def test_ops(self):
        ops = {op["name"]: op for op in krait_json("ops")["ops"]}
        scan = ops["selective_scan"]
        self.assertEqual({"name", "summary", "view", "inputs", "outputs", "attributes", "kernels"},
                         set(scan))
        inputs = {operand["name"]: operand for operand in scan["inputs"]}
        self.assertEqual({"name": "A", "dims": "D N", "role": "wide", "optional": False},
                         inputs["A"])
        self.assertTrue(inputs["skip"]["optional"])
        self.assertEqual(["y", "state"], [operand["name"] for operand in scan["outputs"]])
        self.assertIn({"name": "discretisation", "default": "mamba",
                       "choices": ["mamba", "zoh", "euler", "bilinear"]}, scan["attributes"])
        dtype, = (a for a in ops["linear"]["attributes"] if a["name"] == "dtype")
        self.assertIsNone(dtype["default"])
        self.assertIn("bf16", dtype["choices"])
        self.assertEqual("residual", ops["rms_norm"]["outputs"][1]["only_with"])
        # A backend need not have kernels for ops that are several in one.
        fused = {"linear_residual", "norm_linear", "in_proj_conv1d", "dt_proj_scan",
                 "x_proj_scan"}
        for op in ops.values():
            self.assertEqual(op["view"], op["kernels"]["reference"] == [], op["name"])
            if op["name"] not in fused:
                self.assertEqual(op["view"], op["kernels"]["cpu"] == [], op["name"])
        text = krait("ops").stdout
        for name in ops:
            self.assertIn(f"\n{name}: ", "\n" + text)


if __name__ == "__main__":
    unittest.main()
