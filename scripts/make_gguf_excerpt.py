#!/usr/bin/env python3
"""Copies some tensors of a GGUF file, bit by bit, and their part of the golden beside it.

    pip install gguf
    scripts/make_gguf_excerpt.py GOLDENS/classics-mamba-Q8_0.gguf OUT.gguf blk.0. output_norm

takes the tensors whose names begin with one of the words, all metadata but the tokenizer's, and
of the JSON file of the same stem the entries of those tensors.
"""
import json
import pathlib
import sys

from gguf import GGUFReader, GGUFValueType, GGUFWriter


def main(source, target, *prefixes):
    source, target = pathlib.Path(source), pathlib.Path(target)
    reader = GGUFReader(source)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith(("GGUF.", "tokenizer.")) or key == "general.architecture":
            continue
        kind = field.types[0]
        if kind == GGUFValueType.ARRAY:
            raise SystemExit(f"{key}: arrays are not copied")
        writer.add_key_value(key, field.contents(), kind)
    tensors = [t for t in reader.tensors if t.name.startswith(tuple(prefixes))]
    for tensor in tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    golden = json.loads(source.with_suffix(".json").read_text())
    names = {tensor.name for tensor in tensors}
    kept = {key: golden[key] for key in ("model", "type", "made_by")}
    kept["excerpt_of"] = {key: golden[key] for key in ("gguf", "gguf_bytes", "gguf_crc32")}
    kept["tensors"] = [entry for entry in golden["tensors"] if entry["name"] in names]
    target.with_suffix(".json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
