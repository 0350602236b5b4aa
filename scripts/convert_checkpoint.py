#!/usr/bin/env python3
"""Turns a PyTorch checkpoint (pytorch_model.bin) into the safetensors folder that Krait reads.

    convert_checkpoint.py INPUT OUTPUT --tokenizer gpt-neox-20b/tokenizer.json

INPUT is a folder with config.json and pytorch_model.bin (or pytorch_model.bin.index.json and its
shards), or the .bin file itself; OUTPUT becomes a folder with model.safetensors, config.json and
tokenizer.json. The official Mamba checkpoints come without a tokenizer: all of them use the one of
EleutherAI's GPT-NeoX-20B.

Needs nothing but Python 3.9. A .bin file is a pickle, which could run any code; here it is read by
a machine that knows the handful of names that tensors are made of and refuses everything else.
"""

import argparse
import collections
import io
import itertools
import json
import mmap
import os
import pickle
import pickletools
import shutil
import struct
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

MAX_PICKLE_BYTES = 1 << 28  # the pickle names the tensors; their bytes are elsewhere
CHUNK_BYTES = 1 << 24
HEADER_ALIGNMENT = 64
# Besides the checkpoint, what else Krait and others read.
COMPANIONS = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json")


class Refused(Exception):
    """The input is not what it should be; the message is for the user."""


class ElementType(NamedTuple):
    name: str  # in safetensors
    bytes: int


STORAGE_TYPES = {
    "DoubleStorage": ElementType("F64", 8),
    "FloatStorage": ElementType("F32", 4),
    "HalfStorage": ElementType("F16", 2),
    "BFloat16Storage": ElementType("BF16", 2),
    "LongStorage": ElementType("I64", 8),
    "IntStorage": ElementType("I32", 4),
    "ShortStorage": ElementType("I16", 2),
    "CharStorage": ElementType("I8", 1),
    "ByteStorage": ElementType("U8", 1),
    "BoolStorage": ElementType("BOOL", 1),
}


class Storage(NamedTuple):
    """A run of elements in the file; tensors are views of it."""

    type: ElementType
    data: memoryview


class Tensor(NamedTuple):
    storage: Storage
    offset: int  # in elements, as the strides
    shape: tuple
    strides: tuple

    def elements(self):
        count = 1
        for size in self.shape:
            count *= size
        return count

    def bytes(self):
        return self.elements() * self.storage.type.bytes

    def check(self, name):
        """Every index must lie in the storage; no view may be larger than it."""
        numbers = (self.offset, *self.shape, *self.strides)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise Refused(f"tensor {name!r}: negative or odd offset, shape or stride")
        if len(self.shape) != len(self.strides):
            raise Refused(f"tensor {name!r}: {len(self.shape)} sizes, {len(self.strides)} strides")
        if self.elements() == 0:
            return
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides))
        stored = len(self.storage.data) // self.storage.type.bytes
        if last >= stored or self.elements() > stored:
            raise Refused(f"tensor {name!r}: shape {list(self.shape)} with strides "
                          f"{list(self.strides)} does not fit its {stored} stored elements")

    def is_contiguous(self):
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides)):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True

    def chunks(self):
        """The tensor's bytes in row-major order, piece by piece."""
        if self.elements() == 0:
            return
        width = self.storage.type.bytes
        if self.is_contiguous():
            begin = self.offset * width
            end = begin + self.bytes()
            for start in range(begin, end, CHUNK_BYTES):
                yield self.storage.data[start:min(start + CHUNK_BYTES, end)]
            return
        # One element of the view is one element of the tensor, whatever its bytes mean.
        elements = self.storage.data.cast({1: "B", 2: "H", 4: "I", 8: "Q"}[width])
        *outer, (count, step) = zip(self.shape, self.strides)
        for index in itertools.product(*(range(size) for size, _ in outer)):
            start = self.offset + sum(i * stride for i, (_, stride) in zip(index, outer))
            if step == 0:
                yield elements[start:start + 1].tobytes() * count
            else:
                yield elements[start:start + (count - 1) * step + 1:step].tobytes()


def rebuild_tensor(storage, offset, shape, strides, requires_grad=False, hooks=None, metadata=None):
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) \
            or not isinstance(strides, tuple):
        raise Refused("the pickle builds a tensor out of something else than a storage")
    return Tensor(storage, offset, shape, strides)


def rebuild_parameter(tensor, requires_grad=False, hooks=None):
    return tensor


ALLOWED_GLOBALS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    **{("torch", name): element for name, element in STORAGE_TYPES.items()},
}


# What torch writes, with protocols 2 to 5.
ALLOWED_OPCODES = frozenset("""
    PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE
    SHORT_BINUNICODE EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS
    SETITEM SETITEMS GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID BINPUT LONG_BINPUT MEMOIZE BINGET
    LONG_BINGET""".split())


def check_opcodes(text):
    """The unpickler takes a few bytes for an order to fill all memory: not those of a stranger."""
    for opcode, argument, _ in pickletools.genops(text):
        if opcode.name not in ALLOWED_OPCODES:
            raise Refused(f"the pickle uses {opcode.name}, which no tensor needs")
        if opcode.name == "LONG_BINPUT" and argument > len(text):
            raise Refused("the pickle claims more objects than it can hold")


class TensorUnpickler(pickle.Unpickler):
    """Runs nothing but the calls above; a Tensor or Storage cannot be changed afterwards."""

    def __init__(self, text, load_storage):
        super().__init__(io.BytesIO(text))
        self.load_storage = load_storage

    def find_class(self, module, name):
        try:
            return ALLOWED_GLOBALS[module, name]
        except KeyError:
            raise Refused(f"the pickle asks for {module}.{name}, which no tensor needs; "
                          "not reading further") from None

    def persistent_load(self, saved):
        if not isinstance(saved, tuple) or len(saved) != 5 or saved[0] != "storage":
            raise Refused("the pickle refers to something else than a storage")
        _, element, key, _, count = saved
        if not isinstance(element, ElementType) or not isinstance(key, str) \
                or type(count) is not int or count < 0:
            raise Refused("the pickle refers to a storage in an unknown way")
        return self.load_storage(element, key, count)


class TorchFile:
    """What torch.save wrote: a zip archive with a pickle and, uncompressed, the storages."""

    def __init__(self, path):
        self.path = path
        self.storages = {}
        with open(path, "rb") as file:
            if file.read(4) != b"PK\3\4":
                raise Refused(f"{path} is not a zip archive; torch has written those since 1.6: "
                              "load and save the checkpoint with a newer torch")
            self.memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            with zipfile.ZipFile(file) as archive:
                self.members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in self.members if name.count("/") == 1
                   and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused(f"{path}: expected one data.pkl in the archive, found {len(pickles)}")
        self.root = pickles[0].split("/")[0]
        order = self.members.get(f"{self.root}/byteorder")
        if order and bytes(self.member(order)) != b"little":
            raise Refused(f"{path}: only little-endian checkpoints are supported")

    def member(self, info):
        """The bytes of an uncompressed member, in place."""
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise Refused(f"{self.path}: {info.filename} is compressed or encrypted")
        header = self.memory[info.header_offset:info.header_offset + 30]
        if len(header) != 30 or bytes(header[:4]) != b"PK\3\4":
            raise Refused(f"{self.path}: {info.filename} has no header")
        name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
        begin = info.header_offset + 30 + name_bytes + extra_bytes
        data = self.memory[begin:begin + info.file_size]
        if len(data) != info.file_size:
            raise Refused(f"{self.path}: {info.filename} is cut off")
        return data

    def load_storage(self, element, key, count):
        info = self.members.get(f"{self.root}/data/{key}")
        if info is None:
            raise Refused(f"{self.path}: storage {key!r} is missing")
        if info.file_size != count * element.bytes:
            raise Refused(f"{self.path}: storage {key!r} should have {count * element.bytes} "
                          f"bytes, but has {info.file_size}")
        if key not in self.storages:
            self.storages[key] = Storage(element, self.member(info))
        if self.storages[key].type != element:
            raise Refused(f"{self.path}: storage {key!r} has two element types")
        return self.storages[key]

    def tensors(self):
        """The state dictionary: {name: Tensor}, checked."""
        info = self.members[f"{self.root}/data.pkl"]
        if info.file_size > MAX_PICKLE_BYTES:
            raise Refused(f"{self.path}: data.pkl has {info.file_size} bytes, which no list of "
                          "tensors needs")
        try:
            text = bytes(self.member(info))
            check_opcodes(text)
            state = TensorUnpickler(text, self.load_storage).load()
        except Refused as refusal:
            raise Refused(f"{self.path}: {refusal}") from None
        except Exception as error:  # a broken pickle may fail in any way
            raise Refused(f"{self.path}: broken pickle: {type(error).__name__}: {error}") from None
        if not isinstance(state, dict):
            raise Refused(f"{self.path}: expected a dictionary of tensors, "
                          f"got {type(state).__name__}")
        for name, tensor in state.items():
            if not isinstance(name, str) or not isinstance(tensor, Tensor):
                raise Refused(f"{self.path}: expected names and tensors only, got {name!r}: "
                              f"{type(tensor).__name__}")
            tensor.check(name)
        return state


def read_json(path):
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise Refused(f"{path}: expected an object")
    return value


def load_tensors(source):
    """All tensors of a .bin file, or of a folder with one or with an index of several."""
    if source.is_file():
        return TorchFile(source).tensors()
    single = source / "pytorch_model.bin"
    if single.exists():
        return TorchFile(single).tensors()
    index = source / "pytorch_model.bin.index.json"
    if not index.exists():
        raise Refused(f"{source} holds neither pytorch_model.bin nor {index.name}")
    shard_of = read_json(index).get("weight_map")
    if not isinstance(shard_of, dict):
        raise Refused(f"{index}: expected an object weight_map")
    tensors = {}
    for shard in dict.fromkeys(shard_of.values()):
        if not isinstance(shard, str) or shard in ("", ".", "..") or set(shard) & set("/\\:\0"):
            raise Refused(f"{index}: expected the name of a file beside it, got {shard!r}")
        found = TorchFile(source / shard).tensors()
        twice = tensors.keys() & found.keys()
        if twice:
            raise Refused(f"{index}: tensor {min(twice)!r} is in two shards")
        tensors.update(found)
    missing = shard_of.keys() - tensors.keys()
    if missing:
        raise Refused(f"{index}: tensor {min(missing)!r} is in no shard")
    return tensors


def drop_tied_head(tensors):
    """A head that is a view of the embedding is left out: its absence says that it is tied.

    Other tensors that share a storage are written each for itself: safetensors knows no sharing,
    and a name that is missing would mean that the tensor does not exist.
    """
    head = tensors.get("lm_head.weight")
    for name in ("backbone.embedding.weight", "backbone.embeddings.weight"):
        embedding = tensors.get(name)
        if head and embedding and head.storage is embedding.storage \
                and head[1:] == embedding[1:]:
            return {key: tensor for key, tensor in tensors.items() if key != "lm_head.weight"}
    return tensors


class Progress:
    """A bar on stderr where somebody watches."""

    def __init__(self, total):
        self.total = total
        self.done = 0
        self.shown = -1

    def add(self, count):
        self.done += count
        percent = 100 * self.done // max(self.total, 1)
        if percent != self.shown and sys.stderr.isatty():
            self.shown = percent
            bar = "#" * (percent // 4)
            end = "\n" if self.done == self.total else ""
            print(f"\r[{bar:<25}] {percent:3}%  {self.done / 1e6:.1f} MB", end=end,
                  file=sys.stderr, flush=True)


def replace_file(path, write):
    """Calls write(file) on a file that takes the name `path` only when it is complete."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".tmp-")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp's files are private
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_safetensors(path, tensors):
    """The widest elements first, then by name: so every tensor is aligned."""
    order = sorted(tensors, key=lambda name: (-tensors[name].storage.type.bytes, name))
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name in order:
        tensor = tensors[name]
        header[name] = {"dtype": tensor.storage.type.name, "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + tensor.bytes()]}
        offset += tensor.bytes()
    if len(header) != len(order) + 1:
        raise Refused("a tensor is called __metadata__, which safetensors does not allow")
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise Refused("the name of a tensor is not valid text") from None
    text += b" " * (-(8 + len(text)) % HEADER_ALIGNMENT)

    def write(file):
        file.write(struct.pack("<Q", len(text)) + text)
        progress = Progress(offset)
        for name in order:
            for chunk in tensors[name].chunks():
                file.write(chunk)
                progress.add(len(chunk))

    replace_file(path, write)


def find_tokenizer(folder, given):
    """The tokenizer.json to copy: the one that was asked for, or the one beside the checkpoint."""
    if given is None:
        beside = folder / "tokenizer.json"
        return beside if beside.exists() else None
    path = given / "tokenizer.json" if given.is_dir() else given
    read_json(path)
    return path


def convert(source, output, tokenizer=None, force=False):
    folder = source if source.is_dir() else source.parent
    target = output / "model.safetensors"
    if target.exists() and not force:
        raise Refused(f"{target} exists; --force replaces it")
    read_json(folder / "config.json")
    tokenizer = find_tokenizer(folder, tokenizer)
    tensors = drop_tied_head(load_tensors(source))
    if not tensors:
        raise Refused(f"{source} holds no tensors")

    output.mkdir(parents=True, exist_ok=True)
    write_safetensors(target, tensors)
    copies = [folder / name for name in ("config.json", *COMPANIONS) if (folder / name).exists()]
    copies = [(path, output / path.name) for path in copies]
    if tokenizer:
        copies.append((tokenizer, output / "tokenizer.json"))
    for path, copy in copies:
        if path.resolve() != copy.resolve():
            shutil.copyfile(path, copy)
    size = sum(tensor.bytes() for tensor in tensors.values())
    print(f"{target}: {len(tensors)} tensors, {size / 1e6:.1f} MB", file=sys.stderr)
    if not tokenizer:
        print("No tokenizer.json: give one with --tokenizer (the official Mamba checkpoints use "
              "GPT-NeoX-20B's)", file=sys.stderr)


def main(arguments=None):
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=description, epilog=details,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help="the checkpoint's folder, or its .bin file")
    parser.add_argument("output", type=Path, help="the folder to make")
    parser.add_argument("--tokenizer", type=Path, metavar="PATH",
                        help="tokenizer.json to copy, or the folder that holds it")
    parser.add_argument("--force", action="store_true", help="replace an existing model")
    options = parser.parse_args(arguments)
    try:
        convert(options.input, options.output, options.tokenizer, options.force)
    except (Refused, OSError, zipfile.BadZipFile) as error:
        print(f"convert_checkpoint: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
