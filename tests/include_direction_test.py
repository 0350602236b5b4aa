"""Reads every include directive and fails where a module includes against the design's direction:

    runtime/core <- ops <- {graph, backends} <- runtime/{model,plan} <- runtime/session
                 <- {cli, python, C API};    runtime/text <- runtime/core only
"""
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Folder -> the folders it may include from, besides itself. Peers never include each other.
MAY_INCLUDE = {
    "runtime/core": [],
    "runtime/text": ["runtime/core"],
    "ops": ["runtime/core"],
    "graph": ["runtime/core", "ops"],
    "backends": ["runtime/core", "ops"],
    "runtime/model": ["runtime/core", "runtime/text", "ops", "graph", "backends"],
    "runtime/plan": ["runtime/core", "ops", "graph", "backends"],
}
BELOW_SESSION = list(MAY_INCLUDE)
MAY_INCLUDE["runtime/session"] = BELOW_SESSION
for surface in ("cli", "python", "runtime/c_api"):
    MAY_INCLUDE[surface] = BELOW_SESSION + ["runtime/session"]
MAY_INCLUDE["bench"] = BELOW_SESSION + ["runtime/session"]
MAY_INCLUDE["examples"] = []  # as an embedder: the public headers alone, see PUBLIC_ONLY
PUBLIC_ONLY = ("examples",)

# The module that each public header speaks for; a new header needs a row here.
PUBLIC_FOLDER = "runtime/include/krait/"
PUBLIC_HEADERS = {
    "export.h": "runtime/core",
    "version.h": "runtime/core",
    "status.h": "runtime/core",
    "dtype.h": "runtime/core",
    "tensor.h": "runtime/core",
    "tokenizer.h": "runtime/text",
    "sampler.h": "runtime/text",
    "op.h": "ops",
    "ops.h": "ops",
    "graph.h": "graph",
    "device.h": "backends",
    "backend.h": "backends",
    "conform.h": "backends",
    "model.h": "runtime/model",
    "quantize.h": "runtime/model",
    "plan.h": "runtime/plan",
    "profile.h": "runtime/plan",
    "session.h": "runtime/session",
    "state.h": "runtime/session",
    "verify.h": "runtime/session",
    "krait.h": "runtime/c_api",
    "krait.hpp": "runtime/c_api",
}
C_HEADERS = ("stddef.h", "stdint.h", "stdbool.h")

SUFFIXES = {".h", ".hpp", ".inc", ".c", ".cpp", ".cu", ".cuh"}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)


def folder_of(path):
    """The module folder a repository path lies in, or None."""
    return next((folder for folder in MAY_INCLUDE if path.startswith(folder + "/")), None)


def offence(module, public, bracket, name):
    """What is wrong with a file of this module (a public header?) including name, or None."""
    if bracket == "<":
        if not name.startswith("krait/"):
            if public and not re.fullmatch(r"[a-z_0-9]+", name) and name not in C_HEADERS:
                return "a public header needs only <krait/...> and the standard's"
            return None
        target = PUBLIC_HEADERS.get(name[len("krait/"):])
        if target is None:
            return "there is no such public header"
        if module in PUBLIC_ONLY:
            return None
    else:
        if public:
            return 'a public header includes others as <krait/...>, never "..."'
        target = folder_of(name)
        if target is None:
            return "name it by its path from the repository's root"
        if module in PUBLIC_ONLY and target != module:
            return f"{module} is for embedders, who have <krait/...> alone"
    if target != module and target not in MAY_INCLUDE[module]:
        allowed = ", ".join(MAY_INCLUDE[module]) or "nothing else"
        return f"that is {target}, and {module} may include from {allowed}"
    return None


def violations(sources):
    """The offences in {repository path: text}, one line each: who included what, and the rule."""
    found = []
    for path, text in sorted(sources.items()):
        public = path.startswith(PUBLIC_FOLDER)
        module = PUBLIC_HEADERS.get(path[len(PUBLIC_FOLDER):]) if public else folder_of(path)
        if module is None:
            table = "PUBLIC_HEADERS" if public else "MAY_INCLUDE"
            found.append(f"{path}: belongs to no module; give it one in {table}")
            continue
        for bracket, name in INCLUDE.findall(text):
            wrong = offence(module, public, bracket, name)
            if wrong:
                found.append(f"{path}: includes {name}; {wrong}")
    return found


def repository_sources():
    folders = {folder.split("/")[0] for folder in MAY_INCLUDE}
    files = (file for folder in folders for file in (ROOT / folder).rglob("*"))
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8")
            for file in files if file.suffix in SUFFIXES}


class IncludeDirection(unittest.TestCase):
    def test_repository(self):
        sources = repository_sources()
        self.assertIn("runtime/core/status.cpp", sources)
        self.assertIn("runtime/include/krait/status.h", sources)
        self.assertEqual([], violations(sources))

    def test_allows_the_design(self):
        self.assertEqual([], violations({
            "runtime/core/log.cpp": '#include "runtime/core/log.h"\n#include <krait/status.h>\n',
            "backends/cpu/linear.cpp": '#include "ops/op.h"\n#include <xsimd/xsimd.hpp>\n',
            "runtime/session/state.cpp": '#include "runtime/plan/plan.h"\n#include <krait/op.h>\n',
            "cli/main.cpp": "#include <krait/session.h>\n#include <CLI/CLI.hpp>\n",
            "examples/generate.cpp": "#include <krait/session.h>\n#include <cstdio>\n",
            PUBLIC_FOLDER + "krait.h": "#include <stdint.h>\n#include <krait/export.h>\n",
            PUBLIC_FOLDER + "model.h": "#include <memory>\n#include <krait/graph.h>\n",
        }))

    def test_catches_planted_violations(self):
        for path, line, rule in [
            ("runtime/core/log.cpp", '#include "ops/op.h"', "may include from nothing else"),
            ("runtime/text/bpe.cpp", '#include "runtime/model/config.h"', "may include from"),
            ("runtime/text/bpe.cpp", "#include <krait/graph.h>", "may include from"),
            ("ops/linear.cpp", '  # include "graph/graph.h"', "may include from runtime/core"),
            ("graph/passes/fold.cpp", '#include "backends/backend.h"', "may include from"),
            ("backends/cpu/scan.cu", "#include <krait/graph.h>", "may include from"),
            ("runtime/model/mamba.cpp", '#include "runtime/plan/plan.h"', "may include from"),
            ("runtime/plan/plan.cpp", '#include "runtime/session/state.h"', "may include from"),
            ("graph/graph.cpp", '#include "graph.h"', "path from the repository's root"),
            ("graph/graph.cpp", '#include "krait/graph.h"', "path from the repository's root"),
            ("graph/graph.cpp", "#include <krait/secret.h>", "no such public header"),
            ("runtime/new/x.cpp", "", "belongs to no module"),
            ("examples/generate.cpp", '#include "runtime/core/try.h"', "for embedders"),
            (PUBLIC_FOLDER + "status.h", "#include <krait/session.h>", "may include from"),
            (PUBLIC_FOLDER + "status.h", '#include "runtime/core/try.h"', 'never "..."'),
            (PUBLIC_FOLDER + "status.h", "#include <nlohmann/json.hpp>", "only <krait/...>"),
            (PUBLIC_FOLDER + "secret.h", "", "belongs to no module"),
        ]:
            with self.subTest(path=path, line=line):
                found = violations({path: f"// A comment.\n{line}\n"})
                self.assertEqual(1, len(found), found)
                self.assertIn(path, found[0])
                self.assertIn(rule, found[0])


if __name__ == "__main__":
    unittest.main()
