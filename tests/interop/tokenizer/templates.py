"""Random Jinja templates of the kind that chat templates are made of, for comparison with Jinja2."""

import random

VARIABLES = {
    "s": "Hello, wörld ",
    "t": "a-b-c",
    "u": "<think>x</think>\n\n y",
    "e": "",
    "i": 3,
    "z": 0,
    "n": None,
    "f": 2.5,
    "b": True,
    "l": [1, 2, 3, 4],
    "w": ["b", "A", "c", "ä"],
    "d": {"k": "v", "a": 1, "items": [5], "ü": None},
    "m": [
        {"role": "system", "content": " Be kind. "},
        {"role": "user", "content": "Hi </think> there", "n": 2},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": {"x": 1}}]},
        {"role": "tool", "content": "42"},
        {"role": "user", "content": "", "n": 1},
    ],
}


class Templates:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.names = []

    def pick(self, *options):
        return self.random.choice(options)

    # Expressions, by the kind of value they mostly have.

    def text(self, depth):
        simple = self.pick("s", "t", "u", "e", "m[0].content", "m[1]['content']", "d.k", "'x'",
                           "'a b'", '"it\'s"', "'\\n'", "''", "'ä€😀'", "m[3].role", "missing", "n")
        if depth <= 0:
            return simple
        inner = self.text(depth - 1)
        number = self.number(depth - 1)
        return self.pick(
            simple, f"({inner})", f"{inner} + {self.text(depth - 1)}",
            f"{inner} ~ {self.any(depth - 1)}", f"({inner}).strip()", f"({inner}).upper()",
            f"({inner}).split({self.pick('', chr(39) + '-' + chr(39), chr(39) + '</think>' + chr(39))})"
            f"[{self.pick('0', '-1', '1', '9')}]",
            f"({inner}).rsplit(' ', 1)|join('|')", f"({inner}).replace({self.pick('s', repr('b'), repr('l'))}, '<>')",
            f"({inner})[{number}:]", f"({inner})[:{number}]", f"({inner})[::-1]", f"({inner})[{number}]",
            f"({inner})|trim", f"({inner})|upper", f"({inner})|lower", f"({inner})|title",
            f"({inner})|capitalize", f"({inner})|default('d')", f"({inner})|default('d', true)",
            f"({inner}).lstrip('ab ')", f"({inner}).rstrip()", f"({inner}).title()",
            f"({inner}).capitalize()", f"({inner})|replace('a', 'bb')", f"({inner})|string",
            f"{self.list(depth - 1)}|join(', ')", f"{self.any(depth - 1)}|tojson",
            f"{self.any(depth - 1)}|tojson(indent={self.pick('2', '4', 'none')})",
            f"{self.any(depth - 1)}|tojson(ensure_ascii=true, sort_keys=true)",
            f"({inner} if {self.truth(depth - 1)} else {self.text(depth - 1)})",
            f"({inner} if {self.truth(depth - 1)})", f"{inner} * {self.pick('0', '2', '-1')}",
            f"{self.any(depth - 1)}|string", f"({inner})|string|reverse",
            f"({inner})|indent(2)", f"({inner})|first", f"({inner})|last",
            f"'-'.join({self.list(depth - 1)})", f"({inner}).removeprefix('a')",
        )

    def number(self, depth):
        simple = self.pick("i", "z", "f", "1", "2", "-1", "0", "10", "3.0", "b", "l[1]", "m[1].n")
        if depth <= 0:
            return simple
        inner = self.number(depth - 1)
        return self.pick(
            simple, f"({inner})", f"{inner} + {self.number(depth - 1)}",
            f"{inner} - {self.number(depth - 1)}", f"{inner} * {self.number(depth - 1)}",
            f"{inner} / {self.number(depth - 1)}", f"{inner} // {self.number(depth - 1)}",
            f"{self.number(0)} % {self.number(0)}", f"-{inner}", f"({inner})|abs", f"({inner})|int",
            f"({inner})|float", f"{self.list(depth - 1)}|length", f"({self.text(depth - 1)})|length",
            f"{self.list(depth - 1)}|first", f"({self.text(depth - 1)}).find('b')",
            f"({self.text(depth - 1)}).count('a')", f"{self.text(depth - 1)}|int",
            f"({inner} if {self.truth(depth - 1)} else {self.number(depth - 1)})", f"+{inner}",
            f"{self.list(depth - 1)}|max", f"{self.list(depth - 1)}|min",
        )

    def truth(self, depth):
        simple = self.pick("b", "true", "false", "n", "not b", "missing is defined", "s is string",
                           "d is mapping", "l is iterable", "n is none", "missing", "l", "e")
        if depth <= 0:
            return simple
        any_ = self.any(depth - 1)
        test = self.pick("defined", "undefined", "none", "string", "number", "mapping", "iterable",
                         "sequence", "boolean", "integer", "float", "true", "false")
        return self.pick(
            simple, f"not {self.truth(depth - 1)}", f"({any_} is {test})", f"({any_} is not {test})",
            f"{self.number(depth - 1)} {self.pick('<', '<=', '>', '>=', '==', '!=')} "
            f"{self.number(depth - 1)}",
            f"{self.text(depth - 1)} {self.pick('==', '!=', '<')} {self.text(depth - 1)}",
            f"{self.text(depth - 1)} in {self.text(depth - 1)}",
            f"{any_} in {self.list(depth - 1)}", f"{any_} not in {self.list(depth - 1)}",
            f"'k' in {self.dict(depth - 1)}", f"{any_} == {self.any(depth - 1)}",
            f"({self.truth(depth - 1)} and {self.truth(depth - 1)})",
            f"({self.truth(depth - 1)} or {self.any(depth - 1)})",
            f"({self.text(depth - 1)}).startswith({self.pick(repr('a'), repr('H'), 's')})",
            f"({self.text(depth - 1)}).endswith('c')", f"({self.number(depth - 1)} is odd)",
            f"({self.number(depth - 1)} is divisibleby 2)", f"1 < {self.number(depth - 1)} < 3",
            f"({any_} is eq({self.any(depth - 1)}))", f"({any_} is in {self.list(0)})",
        )

    def list(self, depth):
        simple = self.pick("l", "w", "m", "[]", "[1, 'a', none]", "(1, 2)", "range(4)|list", "d.items",
                           "m[2].tool_calls", "(s,)")
        if depth <= 0:
            return simple
        inner = self.list(depth - 1)
        number = self.number(0)
        return self.pick(
            simple, f"[{self.any(depth - 1)}, {self.any(depth - 1)}]", f"({inner})[{number}:]",
            f"({inner})[::-1]", f"({inner})[:{number}]", f"({inner})|list", f"({inner})|reverse|list",
            f"({inner})|sort", f"({inner})|sort(reverse=true)", f"({inner})|unique|list",
            f"({inner})|map('upper')|list", f"m|map(attribute='role')|list",
            f"m|selectattr('role', 'equalto', {self.pick(repr('user'), 's')})|list",
            "m|rejectattr('n', 'defined')|list", f"({inner})|select('string')|list",
            f"({inner})|reject('none')|list", f"({self.text(depth - 1)}).split('-')",
            f"({self.text(depth - 1)}).splitlines()", f"{inner} + {self.list(depth - 1)}",
            f"({self.text(depth - 1)}).split(none, 1)", f"({self.text(depth - 1)})|list",
            f"{self.dict(depth - 1)}.items()|list", f"{self.dict(depth - 1)}|dictsort",
            f"range({self.number(0)}, {self.number(0)}, {self.pick('1', '2', '-1')})|list",
            f"{self.dict(depth - 1)}.keys()|list", f"{self.dict(depth - 1)}.values()|list",
            f"({inner})|select|list", "m|map(attribute='n', default=9)|list",
            "m|map(attribute='content')|list", f"({inner}) * 2", f"{self.dict(depth - 1)}|items|list",
        )

    def dict(self, depth):
        simple = self.pick("d", "m[0]", "{}", "{'a': 1, 'b': [2]}", "m[2].tool_calls[0].arguments")
        if depth <= 0:
            return simple
        return self.pick(simple, "{'k': " + self.any(depth - 1) + "}",
                         "{" + self.text(0) + ": " + self.any(depth - 1) + ", 'q': 0}")

    def any(self, depth):
        return self.pick(self.text, self.number, self.truth, self.list, self.dict, self.text)(depth)

    # Statements.

    def open(self):
        return self.pick("{%", "{%-", "{% ", "\n  {%", "{%- ", "{%+ ", "\n{%-")

    def close(self):
        return self.pick("%}", "-%}", "%}\n", " %}", "-%}\n  ", "+%}\n")

    def tag(self, body):
        return self.open() + " " + body + " " + self.close()

    def output(self, depth):
        return self.pick("{{ ", "{{- ", "{{") + " " + self.any(depth) + " " + self.pick(" }}", " -}}", "}}\n")

    def plain(self):
        return self.pick("text", " \n ", "\n", "  ", "<|im_start|>", "{", "}", "%", "# x", "\n\n", "")

    def statement(self, depth):
        if depth <= 0:
            return self.pick(self.plain(), self.output(2))
        kind = self.random.randrange(10)
        body = self.block(depth - 1)
        if kind == 0:
            middle = self.tag("else") + self.block(depth - 1) if self.random.random() < 0.5 else ""
            other = (self.tag("elif " + self.truth(2)) + self.block(depth - 1)
                     if self.random.random() < 0.3 else "")
            return self.tag("if " + self.truth(2)) + body + other + middle + self.tag("endif")
        if kind in (1, 2):
            header = self.pick(
                "for x in " + self.list(1), "for x in m", "for k, v in d.items()", "for x in s",
                "for x in l if x is odd", "for x in w if " + self.truth(1), "for x in missing")
            extra = self.pick(
                "{{ loop.index }}", "{{ loop.first }}{{ loop.last }}", "{{ loop.revindex0 }}",
                "{{ x }}", "{{ x.role }}", "{{ loop.previtem }}", "{{ loop.nextitem is defined }}",
                "{% if loop.index > 2 %}{% break %}{% endif %}",
                "{% if loop.index0 == 1 %}{% continue %}{% endif %}", "{{ loop.length }}",
                "{{ loop.cycle('a', 'b') }}")
            middle = self.tag("else") + self.plain() if self.random.random() < 0.2 else ""
            return self.tag(header) + extra + body + middle + self.tag("endfor")
        if kind == 3:
            return self.tag("set y = " + self.any(2)) + "{{ y }}"
        if kind == 4:
            return (self.tag("set ns = namespace(c=0, s='')") + self.tag("for x in l")
                    + self.tag("set ns.c = ns.c + x") + self.tag("set ns.s = ns.s ~ " + self.text(1))
                    + self.tag("endfor") + "{{ ns.c }}{{ ns.s }}")
        if kind == 5:
            return self.tag("set q") + body + self.tag("endset") + "[{{ q }}]"
        if kind == 6:
            return self.tag("set a, c = (1, 'z')") + "{{ a }}{{ c }}"
        if kind == 7:
            return self.pick("{# note #}", "{#- note -#}", "{# note\n #}\n", "{% raw %}{{ x }}{% endraw %}")
        return self.plain() + self.output(2)

    def macro(self):
        name = f"mac{len(self.names)}"
        self.names.append(name)
        return (self.tag(f"macro {name}(p, q={self.any(1)})") + self.block(1)
                + "{{ p }}/{{ q }}" + self.tag("endmacro")
                + self.pick("{{ %s(1) }}", "{{ %s('a', q=s) }}", "{{ %s() }}", "{{ %s(q=2)|upper }}") % name)

    def block(self, depth):
        return "".join(self.statement(depth) for _ in range(self.random.randint(0, 3)))

    def template(self):
        self.names = []
        parts = [self.block(2)]
        if self.random.random() < 0.2:
            parts.append(self.macro())
        parts.append(self.output(3))
        return "".join(parts) + self.pick("", "\n", "\n\n")
