#!/usr/bin/env python3
"""scripts/convert_checkpoint.py on files that this test makes itself, byte for byte, without torch;
where torch is installed, on files that it writes, too."""

import array
import collections
import contextlib
import importlib.util
import io
import json
import os
import pickle
import struct
import sys
import tempfile
import types
import unittest
import zipfile
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
spec = importlib.util.spec_from_file_location("convert_checkpoint",
                                              ROOT / "scripts/convert_checkpoint.py")
converter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(converter)

try:
    import torch
except ImportError:
    torch = None


# The pickles refer to torch by name; these stand for what it calls so.
class FakeStorageType:
    pass


def fake_torch():
    modules = {name: types.ModuleType(name) for name in ("torch", "torch._utils")}
    for name in converter.STORAGE_TYPES:
        kind = type(name, (FakeStorageType,), {"__module__": "torch"})
        setattr(modules["torch"], name, kind)

    def rebuild(*_):
        raise AssertionError("only written, never called")
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        call = types.FunctionType(rebuild.__code__, globals(), name)
        call.__module__, call.__qualname__ = "torch._utils", name
        setattr(modules["torch._utils"], name, call)
    return modules


TORCH = fake_torch()


class Storage:
    def __init__(self, kind, key, count, where="storage"):
        self.saved = (where, getattr(TORCH["torch"], kind), key, "cpu", count)


class Tensor:
    def __init__(self, storage, shape, strides=None, offset=0):
        if strides is None:
            strides, step = [], 1
            for size in reversed(shape):
                strides.insert(0, step)
                step *= size
        self.arguments = (storage, offset, tuple(shape), tuple(strides), False,
                          collections.OrderedDict())

    def __reduce__(self):
        return TORCH["torch._utils"]._rebuild_tensor_v2, self.arguments


class Parameter:
    def __init__(self, tensor):
        self.arguments = (tensor, True, collections.OrderedDict())

    def __reduce__(self):
        return TORCH["torch._utils"]._rebuild_parameter, self.arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.saved if isinstance(value, Storage) else None


def pickled(state):
    text = io.BytesIO()
    with mock.patch.dict(sys.modules, TORCH):
        Pickler(text, protocol=2).dump(state)
    return text.getvalue()


def write_torch(path, state, storages, root="archive", byteorder=b"little",
                compression=zipfile.ZIP_STORED):
    """As torch.save does it; `state` may be the pickle's bytes already."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{root}/data.pkl", state if isinstance(state, bytes) else pickled(state))
        if byteorder:
            archive.writestr(f"{root}/byteorder", byteorder)
        for key, data in storages.items():
            archive.writestr(f"{root}/data/{key}", data)
        archive.writestr(f"{root}/version", b"3\n")


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


def read_safetensors(path):
    data = path.read_bytes()
    length, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    base = 8 + length
    return {name: (entry["dtype"], entry["shape"],
                   data[base + entry["data_offsets"][0]:base + entry["data_offsets"][1]])
            for name, entry in header.items()}, header, length


class ConvertTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.source = self.folder / "source"
        self.output = self.folder / "output"
        self.source.mkdir()
        (self.source / "config.json").write_text('{"d_model": 2, "limit": Infinity}')
        self.bin = self.source / "pytorch_model.bin"

    def run_script(self, *arguments):
        """(exit code, stderr)"""
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            code = converter.main([str(argument) for argument in arguments])
        return code, errors.getvalue()

    def convert(self, *options):
        code, errors = self.run_script(self.source, self.output, *options)
        self.assertEqual(code, 0, errors)
        tensors, _, _ = read_safetensors(self.output / "model.safetensors")
        return tensors

    def refuse(self, message, *options):
        code, errors = self.run_script(self.source, self.output, *options)
        self.assertEqual(code, 1, errors)
        self.assertRegex(errors, message)
        self.assertFalse((self.output / "model.safetensors").exists())
        if self.output.exists():
            self.assertEqual([], [path for path in self.output.iterdir() if "tmp" in path.name])

    def test_every_element_type(self):
        data = bytes(range(48))
        storages, state = {}, collections.OrderedDict()
        for number, (kind, element) in enumerate(converter.STORAGE_TYPES.items()):
            storages[str(number)] = data
            count = len(data) // element.bytes
            state[kind] = Tensor(Storage(kind, str(number), count), [2, count // 2])
        write_torch(self.bin, state, storages)
        tensors = self.convert()
        self.assertEqual(len(tensors), len(converter.STORAGE_TYPES))
        for kind, element in converter.STORAGE_TYPES.items():
            self.assertEqual(tensors[kind],
                             (element.name, [2, 24 // element.bytes], data))

    def test_layout_of_the_file(self):
        storages = {"0": floats(1, 2, 3), "1": b"\1\2\3", "2": bytes(range(16))}
        write_torch(self.bin, {"b": Tensor(Storage("ByteStorage", "1", 3), [3]),
                               "a": Tensor(Storage("FloatStorage", "0", 3), [3]),
                               "é": Tensor(Storage("LongStorage", "2", 2), []),
                               "none": Tensor(Storage("HalfStorage", "3", 0), [0, 4])},
                    {**storages, "3": b""})
        self.convert()
        tensors, header, length = read_safetensors(self.output / "model.safetensors")
        self.assertEqual((8 + length) % 64, 0)
        order = sorted(header, key=lambda name: header[name]["data_offsets"])
        self.assertEqual([name for name in order if name != "none"], ["é", "a", "b"])
        self.assertEqual(tensors["é"], ("I64", [], bytes(range(8))))
        self.assertEqual(tensors["none"], ("F16", [0, 4], b""))
        mask = os.umask(0)
        os.umask(mask)
        mode = (self.output / "model.safetensors").stat().st_mode & 0o777
        self.assertEqual(mode, 0o666 & ~mask)

    def test_views_become_contiguous(self):
        values = list(range(24))
        storage = Storage("IntStorage", "0", 24)
        views = {
            "transposed": ([4, 6], [1, 4], 0),
            "columns": ([6, 2], [4, 1], 1),
            "stepped": ([3], [8], 5),
            "permuted": ([2, 4, 3], [3, 6, 1], 0),
            "repeated": ([2, 3], [1, 0], 7),
            "ones": ([1, 4, 1], [99, 1, 55], 4),
            "row": ([6], [1], 18),
        }
        write_torch(self.bin, {name: Tensor(storage, *view) for name, view in views.items()},
                    {"0": array.array("i", values).tobytes()})
        tensors = self.convert()
        for name, (shape, strides, offset) in views.items():
            expected = [offset]
            for size, stride in zip(shape, strides):
                expected = [start + i * stride for start in expected for i in range(size)]
            self.assertEqual(tensors[name],
                             ("I32", shape, array.array("i", expected).tobytes()), name)

    def test_the_tied_head_is_left_out(self):
        storage = Storage("FloatStorage", "0", 4)
        for name in ("backbone.embedding.weight", "backbone.embeddings.weight"):
            write_torch(self.bin, {name: Tensor(storage, [2, 2]),
                                   "lm_head.weight": Tensor(storage, [2, 2])},
                        {"0": floats(1, 2, 3, 4)})
            self.assertEqual(list(self.convert("--force")), [name])

    def test_other_heads_stay(self):
        storage, other = Storage("FloatStorage", "0", 4), Storage("FloatStorage", "1", 4)
        storages = {"0": floats(1, 2, 3, 4), "1": floats(1, 2, 3, 4)}
        for head in (Tensor(other, [2, 2]), Tensor(storage, [2, 2], [1, 2])):
            write_torch(self.bin, {"backbone.embedding.weight": Tensor(storage, [2, 2]),
                                   "lm_head.weight": head}, storages)
            self.assertEqual(len(self.convert("--force")), 2)

    def test_shared_storages_are_written_for_every_name(self):
        storage = Storage("FloatStorage", "0", 4)
        write_torch(self.bin, {"a": Tensor(storage, [2]), "b": Tensor(storage, [2], offset=2),
                               "c": Tensor(storage, [2])}, {"0": floats(1, 2, 3, 4)})
        self.assertEqual(self.convert(), {"a": ("F32", [2], floats(1, 2)),
                                          "b": ("F32", [2], floats(3, 4)),
                                          "c": ("F32", [2], floats(1, 2))})

    def test_parameters_and_metadata_of_modules(self):
        state = collections.OrderedDict(
            a=Parameter(Tensor(Storage("FloatStorage", "0", 1), [1])))
        state._metadata = collections.OrderedDict({"": {"version": 1}})
        write_torch(self.bin, state, {"0": floats(5)}, root="pytorch_model", byteorder=None)
        self.assertEqual(self.convert(), {"a": ("F32", [1], floats(5))})

    def test_a_single_file_and_the_companions(self):
        write_torch(self.bin, {"a": Tensor(Storage("FloatStorage", "0", 1), [1])},
                    {"0": floats(5)})
        (self.source / "generation_config.json").write_text("{}")
        (self.source / "other.txt").write_text("x")
        tokenizer = self.folder / "neox.json"
        tokenizer.write_text('{"model": {}}')
        code, errors = self.run_script(self.bin, self.output, "--tokenizer", tokenizer)
        self.assertEqual(code, 0, errors)
        self.assertEqual({path.name: path.read_text() for path in self.output.iterdir()
                          if path.suffix == ".json"},
                         {"config.json": '{"d_model": 2, "limit": Infinity}',
                          "generation_config.json": "{}", "tokenizer.json": '{"model": {}}'})
        self.assertFalse((self.output / "other.txt").exists())

    def test_where_the_tokenizer_comes_from(self):
        write_torch(self.bin, {"a": Tensor(Storage("FloatStorage", "0", 1), [1])},
                    {"0": floats(5)})
        code, errors = self.run_script(self.source, self.output)
        self.assertEqual(code, 0, errors)
        self.assertIn("--tokenizer", errors)
        (self.source / "tokenizer.json").write_text('{"beside": 1}')
        self.convert("--force")
        self.assertEqual((self.output / "tokenizer.json").read_text(), '{"beside": 1}')
        folder = self.folder / "neox"
        folder.mkdir()
        (folder / "tokenizer.json").write_text('{"given": 1}')
        self.convert("--force", "--tokenizer", folder)
        self.assertEqual((self.output / "tokenizer.json").read_text(), '{"given": 1}')

    def test_converts_in_place(self):
        write_torch(self.bin, {"a": Tensor(Storage("FloatStorage", "0", 1), [1])},
                    {"0": floats(5)})
        self.output = self.source
        self.assertEqual(list(self.convert()), ["a"])
        self.assertEqual((self.source / "config.json").read_text(),
                         '{"d_model": 2, "limit": Infinity}')

    def test_does_not_replace_a_model_unasked(self):
        write_torch(self.bin, {"a": Tensor(Storage("FloatStorage", "0", 1), [1])},
                    {"0": floats(5)})
        self.convert()
        before = (self.output / "model.safetensors").read_bytes()
        code, errors = self.run_script(self.source, self.output)
        self.assertEqual(code, 1)
        self.assertIn("--force", errors)
        self.assertEqual((self.output / "model.safetensors").read_bytes(), before)

    def write_shards(self, weight_map):
        for shard, value in ((1, 5), (2, 7)):
            write_torch(self.source / f"pytorch_model-0000{shard}-of-00002.bin",
                        {f"t{shard}": Tensor(Storage("FloatStorage", "0", 1), [1])},
                        {"0": floats(value)})
        (self.source / "pytorch_model.bin.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": weight_map}))

    def test_shards(self):
        shards = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
        self.write_shards({"t1": shards[0], "t2": shards[1]})
        self.assertEqual(self.convert(), {"t1": ("F32", [1], floats(5)),
                                          "t2": ("F32", [1], floats(7))})

    def test_refuses_bad_shards(self):
        first = "pytorch_model-00001-of-00002.bin"
        self.write_shards({"t1": first, "t9": first})
        self.refuse("'t9' is in no shard")
        for name in ("../x.bin", "/x.bin", "..", "", "a/b", "a\\b", 3):
            self.write_shards({"t1": name})
            self.refuse("expected the name of a file beside it")
        self.write_shards({"t1": "absent.bin"})
        self.refuse("absent.bin")
        self.write_shards([])
        self.refuse("weight_map")
        self.write_shards({"t1": first, "t2": "pytorch_model-00002-of-00002.bin"})
        write_torch(self.source / "pytorch_model-00002-of-00002.bin",
                    {"t1": Tensor(Storage("FloatStorage", "0", 1), [1])}, {"0": floats(5)})
        self.refuse("'t1' is in two shards")

    def test_refuses_code(self):
        witness = self.folder / "executed"

        class Hostile:
            def __reduce__(self):
                return os.mkdir, (str(witness),)
        for state in ({"a": Hostile()}, Hostile()):
            write_torch(self.bin, state, {})
            self.refuse("asks for (posix|nt|os).mkdir, which no tensor needs")
        for call in (b"cbuiltins\neval\n", b"ctorch\nload\n", b"ccollections\nCounter\n",
                     b"\x8c\x08builtins\x8c\x04exec\x93", b"ctorch._utils\n__builtins__\n"):
            write_torch(self.bin, b"\x80\x04" + call + b"\x8c\x011\x85R.", {})
            self.refuse("which no tensor needs")
        self.assertFalse(witness.exists())

    def test_refuses_pickles_that_fill_memory(self):
        for text, message in ((b"\x80\x04Nr\xff\xff\xff\xff.", "more objects than it can hold"),
                              (b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".", "broken pickle"),
                              (b"\x80\x05\x96" + bytes(8) + b".", "uses BYTEARRAY8"),
                              (b"\x80\x02(i__main__\nx\n.", "uses INST"),
                              (b"\x82\x01.", "uses EXT1"),
                              (b"\x80\x04\x8c\x01a\x8c\x01b\x81.", "uses NEWOBJ")):
            write_torch(self.bin, text, {})
            self.refuse(message)

    def test_reads_every_protocol_that_torch_may_use(self):
        for protocol in (2, 3, 4, 5):
            text = io.BytesIO()
            with mock.patch.dict(sys.modules, TORCH):
                Pickler(text, protocol=protocol).dump(
                    {"a": Tensor(Storage("FloatStorage", "0", 1), [1])})
            write_torch(self.bin, text.getvalue(), {"0": floats(5)})
            self.assertEqual(self.convert("--force"), {"a": ("F32", [1], floats(5))})

    def test_refuses_broken_pickles(self):
        good = pickled({"a": Tensor(Storage("FloatStorage", "0", 1), [1])})
        for end in range(len(good)):
            write_torch(self.bin, good[:end], {"0": floats(5)})
            self.refuse("broken pickle|expected a dictionary|refers to")
        for text in (b"\x80\x04]\x94.", b"\x80\x04}\x94\x8c\x01aK\x01s.", b"\x80\x04K\x01K\x02\x86R.",
                     b"\x80\x04N.", b"r\0\0\0\0.",
                     b"\x80\x04ccollections\nOrderedDict\n}b.", b"\x80\x04ctorch\nFloatStorage\n)R."):
            write_torch(self.bin, text, {})
            self.refuse("broken pickle|expected")

    def test_refuses_views_outside_their_storage(self):
        storage = Storage("FloatStorage", "0", 4)
        for arguments in (([5], None, 0), ([4], None, 1), ([2, 2], [3, 2], 0), ([1], [1], 4),
                          ([2**62, 4], None, 0), ([3, 3], [1, 1], 0), ([2**60], [0], 0),
                          ([5], [0], 0)):
            write_torch(self.bin, {"a": Tensor(storage, *arguments)}, {"0": floats(1, 2, 3, 4)})
            self.refuse("does not fit its 4 stored elements")
        for arguments in (([-1], [1], 0), ([1], [-1], 0), ([1], [1], -1), ([1.0], [1], 0),
                          ([True], [1], 0), (["1"], [1], 0)):
            write_torch(self.bin, {"a": Tensor(storage, *arguments)}, {"0": floats(1, 2, 3, 4)})
            self.refuse("negative or odd")
        write_torch(self.bin, {"a": Tensor(storage, [1, 1], [1])}, {"0": floats(1, 2, 3, 4)})
        self.refuse("2 sizes, 1 strides")

    def test_refuses_bad_storages(self):
        def state(*arguments, **options):
            return {"a": Tensor(Storage(*arguments, **options), [1])}
        data = {"0": floats(1, 2)}
        for broken, message in (
                (state("FloatStorage", "9", 2), "storage '9' is missing"),
                (state("FloatStorage", "../0", 2), "is missing"),
                (state("FloatStorage", "0", 3), "should have 12 bytes, but has 8"),
                (state("FloatStorage", "0", -2), "in an unknown way"),
                (state("FloatStorage", 0, 2), "in an unknown way"),
                (state("FloatStorage", "0", "2"), "in an unknown way"),
                (state("FloatStorage", "0", 2, where="module"), "something else than a storage"),
                ({"a": Tensor(Storage("FloatStorage", "0", 2), [1]),
                  "b": Tensor(Storage("IntStorage", "0", 2), [1])}, "two element types"),
                ({"a": Tensor(3, [1])}, "something else than a storage"),
                ({"a": Tensor(Storage("FloatStorage", "0", 2), [1]), "b": 3}, "'b': int"),
                ({7: Tensor(Storage("FloatStorage", "0", 2), [1])}, "got 7"),
                ([], "expected a dictionary of tensors, got list"),
                ({}, "holds no tensors"),
                ({"__metadata__": Tensor(Storage("FloatStorage", "0", 2), [1])}, "__metadata__"),
                ({"\ud800": Tensor(Storage("FloatStorage", "0", 2), [1])}, "not valid text")):
            write_torch(self.bin, broken, data)
            self.refuse(message)

    def test_refuses_bad_archives(self):
        self.bin.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
        self.refuse("not a zip archive")
        self.bin.write_bytes(b"")
        self.refuse("not a zip archive")
        self.bin.write_bytes(b"PK\3\4 and no more")
        self.refuse("zip")
        good = {"a": Tensor(Storage("FloatStorage", "0", 1), [1])}
        write_torch(self.bin, good, {"0": floats(5)}, byteorder=b"big")
        self.refuse("little-endian")
        write_torch(self.bin, good, {"0": floats(5)}, compression=zipfile.ZIP_DEFLATED)
        self.refuse("compressed")
        with zipfile.ZipFile(self.bin, "w") as archive:
            archive.writestr("a/data.pkl", b"")
            archive.writestr("b/data.pkl", b"")
        self.refuse("expected one data.pkl in the archive, found 2")
        # The directory at the archive's end may point anywhere.
        write_torch(self.bin, good, {"0": floats(5)})
        whole = self.bin.read_bytes()
        place = whole.index(b"PK\1\2") + 42
        for offset in (1, len(whole) - 8, 2**31):
            self.bin.write_bytes(whole[:place] + struct.pack("<I", offset) + whole[place + 4:])
            self.refuse("has no header|zip|cut off")
        for end in range(0, len(whole), 7):
            self.bin.write_bytes(whole[:end])
            self.refuse(".")

    def test_refuses_what_is_missing(self):
        self.refuse("neither pytorch_model.bin nor")
        write_torch(self.bin, {"a": Tensor(Storage("FloatStorage", "0", 1), [1])},
                    {"0": floats(5)})
        self.refuse("absent.json", "--tokenizer", self.folder / "absent.json")
        broken = self.folder / "broken.json"
        broken.write_text("[" * 100000)
        self.refuse("broken.json", "--tokenizer", broken)
        (self.source / "config.json").write_text("[1]")
        self.refuse("config.json: expected an object")
        (self.source / "config.json").unlink()
        self.refuse("config.json")

    def test_help_says_how(self):
        text = io.StringIO()
        with contextlib.redirect_stdout(text), self.assertRaises(SystemExit) as end:
            converter.main(["--help"])
        self.assertEqual(end.exception.code, 0)
        self.assertIn("--tokenizer", text.getvalue())
        self.assertIn("GPT-NeoX-20B", text.getvalue())

    @unittest.skipUnless(torch, "torch is not installed")
    def test_agrees_with_torch(self):
        torch.manual_seed(1)
        embedding = torch.nn.Parameter(torch.randn(10, 4))
        state = collections.OrderedDict({
            "backbone.embedding.weight": embedding, "lm_head.weight": embedding,
            "transposed": torch.randn(5, 3).t(), "half": torch.randn(7).half(),
            "bf16": torch.randn(2, 3, 4).bfloat16().permute(2, 0, 1), "slice": torch.randn(9)[2:8:2],
            "long": torch.arange(5), "bool": torch.tensor([True, False]),
            "scalar": torch.tensor(1.5, dtype=torch.float64), "empty": torch.empty(0, 3),
            "expanded": torch.randn(6)[:2, None].expand(2, 3)})
        torch.save(state, self.bin)
        tensors = self.convert()
        self.assertEqual(set(tensors), set(state) - {"lm_head.weight"})
        for name, (_, shape, data) in tensors.items():
            tensor = state[name].detach().contiguous()
            self.assertEqual(shape, list(tensor.shape), name)
            expected = bytes(tensor.reshape(-1).view(torch.uint8).tolist()) if tensor.numel() else b""
            self.assertEqual(data, expected, name)
        torch.save(torch.nn.Linear(3, 2).state_dict(), self.bin)
        self.assertEqual(set(self.convert("--force")), {"weight", "bias"})
        torch.save(state, self.bin, _use_new_zipfile_serialization=False)
        code, errors = self.run_script(self.source, self.folder / "legacy")
        self.assertEqual(code, 1)
        self.assertIn("not a zip archive", errors)


if __name__ == "__main__":
    unittest.main()
