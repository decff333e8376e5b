#!/usr/bin/env python3
"""The house rules that a program can check (docs/style.md). Prints each breach; exits 1 if there is one.

Usage: tools/tidy.py [--update-ratchet]
The ratchet (tools/tidy_ratchet.txt) lists exceptions with their present size; an entry may only shrink.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RATCHET = ROOT / "tools" / "tidy_ratchet.txt"
LEVELS = ["base", "math net api", "fabric http tokenizer", "ep kv", "model", "engine",
          "server epp sidecar launcher", "gateway", "cmd"]
LEVEL = {module: level for level, names in enumerate(LEVELS) for module in names.split()}
# Run on machines without weights: what they share with the engine lives in api/.
WEIGHTLESS = {"epp", "gateway", "sidecar"}
ENGINE_SIDE = {"fabric", "ep", "kv", "model", "engine"}
LINE_MAX, FUNCTION_MAX, FILE_MAX, HEADER_MAX, PARAMETERS_MAX = 100, 70, 600, 250, 6
# Places where a rule does not apply, each for a stated reason.
PRINTS_ALLOWED = ("cmd/", "bench/", "fuzz/", "src/base/log.cc", "src/base/check.cc")
GETENV_ALLOWED = ("src/base/options.cc",)
ONLY_IN = {  # a library stays behind one folder
    r"#include <(grpcpp|google/protobuf)/": ("src/epp/", "tests/"),
    r"#include <(immintrin|x86intrin)\.h>": ("src/math/", "bench/", "src/base/thread_pool.cc", "src/fabric/"),
    r"#include <uc[pst]/": ("src/fabric/",),
    r"#include <boost/": ("src/net/", "src/http/", "tests/", "fuzz/"),
    r"#include <rapidjson/": ("src/base/json.cc",),
    r"#include <yaml-cpp/": ("src/base/yaml.cc",),
}


def tracked(*patterns):
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", *patterns], cwd=ROOT,
                         capture_output=True, text=True, check=True).stdout
    return [path for path in out.splitlines() if (ROOT / path).is_file()]


def strip(text):
    """The code with comments, strings and character literals blanked out; the lines stay."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    raw = r'R"([^(\s]*)\((?:.|\n)*?\)\1"'
    return re.sub(raw + r'|//[^\n]*|/\*(?:.|\n)*?\*/|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'',
                  blank, text)


def functions(code):
    """(first line, number of lines, name) of every function body: a `{` after `)` at namespace or class level."""
    depth, kinds, found = 0, [], []
    for match in re.finditer(r"[{};]", code):
        if match.group(0) == "}":
            if kinds:
                kind, start, name = kinds.pop()
                if kind == "function" and not any(k == "function" for k, _, _ in kinds):
                    lines = code.count("\n", start, match.start()) + 1
                    found.append((code.count("\n", 0, start) + 1, lines, name))
        elif match.group(0) == "{":
            start = max(code.rfind(c, 0, match.start()) for c in "{};") + 1
            head = code[start:match.start()]
            if re.search(r"\b(namespace|class|struct|enum|union)\b(?![^(]*\))", head) and "(" not in head.split(":")[0]:
                kind = "scope"
            elif ")" in head and "=" not in head.split("(")[0]:
                kind = "function"
            else:
                kind = "other"
            name = re.search(r"([~\w:]+)\s*\(", head)
            kinds.append((kind, start + len(head) - len(head.lstrip()), name.group(1) if name else "?"))
    return found


def parameters(head):
    depth, count, seen = 0, 1, False
    for c in head:
        if c in "(<[{":
            depth += 1
        elif c in ")>]}":
            depth -= 1
        elif c == "," and depth == 0:
            count += 1
        if not c.isspace():
            seen = True
    return count if seen else 0


class Tidy:
    def __init__(self):
        self.problems = []
        self.sizes = {}  # what the ratchet holds: "function path name" or "file path" -> lines

    def say(self, path, line, text):
        self.problems.append(f"{path}:{line}: {text}")

    def each_line(self, path, code, pattern, text):
        for number, line in enumerate(code.splitlines(), 1):
            if re.search(pattern, line):
                self.say(path, number, text)

    def cpp(self, path):
        text = (ROOT / path).read_text()
        code = strip(text)
        lines = text.splitlines()
        for number, line in enumerate(lines, 1):
            if len(line) > LINE_MAX:
                self.say(path, number, f"line of {len(line)} characters, at most {LINE_MAX}")
            if re.search(r"\bTODO\b(?!\(#\d+\))", line):
                self.say(path, number, "TODO without an issue number: TODO(#123): ...")
            if re.match(r"\s*//\s*.*[;{]\s*$", line) and re.match(r"\s*//\s*(if|for|return|auto|const|int|std::)\b.*[;{]$", line):
                self.say(path, number, "commented-out code")
        limit = HEADER_MAX if path.endswith(".h") and not path.endswith("-inl.h") else FILE_MAX
        if len(lines) > limit:
            self.sizes[f"file {path}"] = (len(lines), limit)
        for start, length, name in functions(code):
            if length > FUNCTION_MAX:
                self.sizes[f"function {path} {name}"] = (length, FUNCTION_MAX)
        for match in re.finditer(r"^[\w:<>,*&\s\[\]~]*?\b([a-z_]\w*)\(((?:[^()]|\([^()]*\))*)\)\s*(?:const\s*)?(?:noexcept\s*)?(?:override\s*)?[{;]", code, re.M):
            if match.group(1) not in ("if", "for", "while", "switch", "return") and "=" not in match.group(0).split("(")[0]:
                if re.match(r"(?!\s*return\b)\s*[\w:][\w:<>*&,\s]*\s[\w:~]+\(", match.group(0)) and parameters(match.group(2)) > PARAMETERS_MAX:
                    if re.search(r"[\w>&*]\s+\w+\s*(,|$)", match.group(2)):
                        self.say(path, code.count("\n", 0, match.start(1)) + 1, f"{match.group(1)}: more than {PARAMETERS_MAX} parameters")
        if path.endswith(".h"):
            self.each_line(path, code, r"\busing namespace\b", "using namespace in a header")
            if "#pragma once" not in text:
                self.say(path, 1, "no #pragma once")
        if not path.startswith(PRINTS_ALLOWED) and not path.endswith("_test.cc") and not path.startswith("tests/"):
            self.each_line(path, code, r"std::cout|std::cerr|\bprintf\(|\bfprintf\(|fmt::print", "prints: use the log")
        if path not in GETENV_ALLOWED:
            self.each_line(path, code, r"\bgetenv\(", "getenv outside base/options")
        self.each_line(path, code, r"co_await[^;]*\?[^;]*:|[?:&|]\s*co_await\b(?!.*;\s*$)|(&&|\|\|)\s*co_await", "co_await inside ?:, && or ||")
        if path.endswith("_test.cc") or path.startswith("tests/"):
            self.each_line(path, code, r"\bsleep_for\(|\busleep\(|[^_\w]sleep\(", "a test that sleeps")
        self.each_line(path, code, r"(?<![\w_])new\s+\w|(?<!= )\bdelete\s+\w|\bmalloc\(|\bcalloc\(|\brealloc\(", "raw new, delete or malloc")
        for pattern, places in ONLY_IN.items():
            if not path.startswith(places):
                self.each_line(path, text, pattern, f"belongs to {', '.join(places)}")
        self.includes(path, text)

    def includes(self, path, text):
        parts = path.split("/")
        if parts[0] not in ("src", "cmd"):
            return
        module = parts[1] if parts[0] == "src" else "cmd"
        if module not in LEVEL:
            self.say(path, 1, f"module {module} has no level")
            return
        for number, line in enumerate(text.splitlines(), 1):
            match = re.match(r'#include "([\w-]+)/', line)
            if not match:
                if re.match(r'#include "', line) and not re.match(r'#include "[\w./-]+\.pb\.h"', line):
                    self.say(path, number, "include by full path from src/")
                continue
            other = match.group(1)
            if other == module or (other == "tests" and path.endswith("_test.cc")):
                continue
            if other not in LEVEL:
                self.say(path, number, f"include of unknown module {other}")
            elif LEVEL[other] >= LEVEL[module]:
                self.say(path, number, f"{module} (level {LEVEL[module] + 1}) includes {other} (level {LEVEL[other] + 1})")
            elif module in WEIGHTLESS and other in ENGINE_SIDE:
                self.say(path, number, f"{module} runs without weights and must not include {other}")

    def tests_exist(self, files):
        """Every .cc of a module is reached from a test of the module (or of tests/) through includes."""
        includes = {f: re.findall(r'#include "([\w./-]+)"', (ROOT / f).read_text()) for f in files}
        reached = set()
        todo = [f for f in files if f.endswith("_test.cc") or f.startswith("tests/")]
        while todo:
            path = todo.pop()
            if path in reached:
                continue
            reached.add(path)
            for header in includes.get(path, []):
                for place in (f"src/{header}", header):
                    todo += [f for f in (place, place[:-2] + ".cc") if f in includes]
        for path in files:  # one header, several sources: foo_reference.cc of foo.h
            if path.endswith(".cc") and path[:-3] + ".h" not in includes:
                if any(f"src/{header}" in reached for header in includes[path][:1]):
                    reached.add(path)
        for path in files:
            if not (path.startswith("src/") and path.endswith(".cc")):  # verbs are run by tests/cli
                continue
            if not re.search(r"_(fuzz|avx2|avx512|avx512bf16|amx|scalar)\.cc$", path) and path not in reached:
                self.say(path, 1, "no test reaches it")

    def docs(self):
        for path in tracked("*.md"):
            if path.startswith(("tests/golden/data/", "models/")):
                continue
            text = (ROOT / path).read_text()
            for number, line in enumerate(text.splitlines(), 1):
                for name in re.findall(r"`((?:src|docs|tools|tests|bench|fuzz|cmd|deploy|models|proto)/[\w./-]+?\.\w+)`", line):
                    if not (ROOT / name).exists():
                        self.say(path, number, f"names {name}, which does not exist")
                for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", line):
                    if not (ROOT / path).parent.joinpath(target).exists():
                        self.say(path, number, f"links to {target}, which does not exist")
        for module in sorted((ROOT / "src").iterdir()):
            readme = module / "README.md"
            if not readme.exists():
                self.say(f"src/{module.name}", 1, "module without README.md")
            elif len(readme.read_text().splitlines()) > 30:
                self.say(f"src/{module.name}/README.md", 31, "more than 30 lines")

    def ports(self, path):
        if path.startswith(("cmd/", "deploy/")) or path.endswith("_options.h"):
            return
        code = strip((ROOT / path).read_text())
        self.each_line(path, code, r"\b(port|Port)\w*\s*(=|\{|\()\s*[1-9]\d{2,}", "a literal port")

    def link_edges(self):
        for path in tracked("src/*/CMakeLists.txt"):
            module = path.split("/")[1]
            text = (ROOT / path).read_text()
            deps = re.search(r"DEPS ([\w\s]+?)(?:LIBS|PRIVATE_LIBS|TEST_LIBS|\))", text)
            for dep in (deps.group(1).split() if deps else []):
                if LEVEL.get(dep, 99) >= LEVEL[module]:
                    self.say(path, 1, f"links {module} to {dep} of the same or a higher level")
                if module in WEIGHTLESS and dep in ENGINE_SIDE:
                    self.say(path, 1, f"{module} must not link {dep}")


def check_ratchet(tidy):
    allowed = {}
    if RATCHET.exists():
        for line in RATCHET.read_text().splitlines():
            if line and not line.startswith("#"):
                size, key = line.split(" ", 1)
                allowed[key] = int(size)
    for key, (size, limit) in sorted(tidy.sizes.items()):
        if size > allowed.get(key, limit):
            tidy.problems.append(f"{key}: {size} lines, at most {allowed.get(key, limit)}")
    for key, size in allowed.items():
        now = tidy.sizes.get(key, (0, 0))[0]
        if now < size:
            tidy.problems.append(f"tools/tidy_ratchet.txt: {key} has {now or 'no'} lines too many now; lower or remove its entry")


def main():
    tidy = Tidy()
    files = tracked("src/*.h", "src/*.cc", "cmd/*.h", "cmd/*.cc", "tests/*.h", "tests/*.cc", "bench/*.h", "bench/*.cc",
                    "fuzz/*.h", "fuzz/*.cc", "src/**/*.h", "src/**/*.cc", "tests/**/*.h", "tests/**/*.cc")
    files = sorted(set(files))
    for path in files:
        tidy.cpp(path)
        tidy.ports(path)
    tidy.tests_exist(files)
    tidy.docs()
    tidy.link_edges()
    if "--update-ratchet" in sys.argv:
        entries = [f"{size} {key}" for key, (size, _) in sorted(tidy.sizes.items())]
        RATCHET.write_text("# Exceptions to the size limits; an entry may only shrink. See tools/tidy.py.\n" + "\n".join(entries) + "\n")
    check_ratchet(tidy)
    print("\n".join(tidy.problems))
    sizes = sorted(len((ROOT / f).read_text().splitlines()) for f in files)
    used = sorted({LEVEL[f.split("/")[1]] for f in files if f.startswith("src/")})
    print(f"tidy: {len(files)} files, median {sizes[len(sizes) // 2]} lines, {len(used)} levels in use, {len(tidy.problems)} problems")
    return 1 if tidy.problems else 0


if __name__ == "__main__":
    sys.exit(main())
