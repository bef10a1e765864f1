"""Chat templates: what real ones render, and that the rest is refused the same way every time."""

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lockstep.engine.errors import ModelRejected, RequestRejected
from lockstep.workers.inference import template_sandbox
from lockstep.workers.inference.template import ChatTemplate

DATE = datetime(2024, 7, 26)
USER = {"role": "user", "content": " Hi <b> "}
ANSWER = {"role": "assistant", "content": "<think>so</think>\n\nYo"}
SYSTEM = {"role": "system", "content": "Be kind."}
TURNS = [USER, ANSWER, USER]


def render(source: str, turns: list[dict[str, str]] = TURNS, **more: Any) -> str:
    variables = {
        "messages": turns,
        "add_generation_prompt": True,
        "tools": None,
        "documents": None,
        "bos_token": "<s>",
    }
    return ChatTemplate(source, DATE).render({**variables, "eos_token": "</s>", **more})


LLAMA_3 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
    {%- endfor %}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string
        and not (message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- if '</think>' in content %}
            {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>' }}{%- endif %}
"""

MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception("roles must alternate user/assistant/user/assistant/...") }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- else %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
"""

GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'assistant') %}"
    "{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)

# As SmolLM3 and Phi-4-reasoning mark what the model itself said.
GENERATION = (
    "{% for message in messages %}{% if message.role == 'assistant' %}\n"
    "    {%- generation %}{{ '<a>' + message.content }}\n    {% set role = 'x' %}"
    "{{ '</a>' ~ role ~ loop.index }}\n"
    "    {%- endgeneration %}\n"
    "{% else %}\n    {{ '<' ~ message.role ~ '>' ~ message.content ~ role }}\n"
    "{% endif %}{% endfor %}{% if documents is not none %}documents{% endif %}"
)

PHI = (
    "{% macro turn(role, text) %}{{ '<|' ~ role ~ '|>\n' ~ text ~ '<|end|>\n' }}{% endmacro %}"
    "{% for message in messages %}{{ turn(message['role'], message['content']) }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)


@pytest.mark.parametrize(
    ("source", "turns", "expected"),
    [
        (
            LLAMA_3,
            [SYSTEM, USER],
            "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n"
            "Be kind.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi <b><|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            QWEN,
            TURNS,
            "<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\n Hi <b> <|im_end|>\n"
            "<|im_start|>assistant\nYo<|im_end|>\n<|im_start|>user\n Hi <b> <|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
        (
            MISTRAL,
            [SYSTEM, *TURNS],
            "<s>[INST]  Hi <b> [/INST] <think>so</think>\n\nYo</s>"
            "[INST] Be kind.\n\n Hi <b> [/INST]",
        ),
        (
            GEMMA,
            TURNS[:2],
            "<s><start_of_turn>user\nHi <b><end_of_turn>\n<start_of_turn>model\n"
            "<think>so</think>\n\nYo<end_of_turn>\n<start_of_turn>model\n",
        ),
        (PHI, [USER], "<|user|>\n Hi <b> <|end|>\n<|assistant|>\n"),
        (
            GENERATION,
            TURNS,
            "    <user> Hi <b> \n<a><think>so</think>\n\nYo\n</a>x2    <user> Hi <b> \n",
        ),
    ],
)
def test_real_templates_render_what_they_should(
    source: str, turns: list[dict[str, str]], expected: str
) -> None:
    assert render(source, turns) == expected
    assert expected == theirs(source, turns)


class Tracker(Extension):
    """The tag of transformers, which compiles its body to a macro and calls it."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_said")
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _said(self, caller: Macro) -> Any:
        return caller()


def theirs(source: str, turns: list[dict[str, str]] = TURNS) -> str:
    """What the environment of transformers renders."""
    plain = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Tracker]
    )
    plain.globals["strftime_now"] = DATE.strftime
    return plain.from_string(source).render(
        messages=turns, add_generation_prompt=True, tools=None, documents=None,
        bos_token="<s>", eos_token="</s>",
    )  # fmt: skip


def test_a_long_conversation_is_within_the_limits() -> None:
    turns = [{"role": ("user", "assistant")[i % 2], "content": "word " * 200} for i in range(4095)]
    for source in (LLAMA_3, QWEN, MISTRAL, GEMMA, PHI):
        assert len(render(source, turns)) > 4095 * 999


def test_templates_refuse_roles_by_their_own_words() -> None:
    with pytest.raises(RequestRejected, match=r"chat template: System role not supported$"):
        render(GEMMA, [SYSTEM])
    with pytest.raises(RequestRejected, match="roles must alternate"):
        render(MISTRAL, [USER, USER])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ 'a' ~ 1 ~ none ~ 2.5 ~ true ~ nope }}", "a1None2.5True"),
        ("{{ [3, 1, 2] | sort | join(',') }}{{ messages | map(attribute='role') | join('/') }}",
         "1,2,3user/assistant/user"),
        ("{% for k, v in messages[0].items() %}{{ k }}{{ loop.length }}{% endfor %}",
         "role2content2"),
        ("{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}{{ v }}{% endfor %}", "a2b1"),
        ("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}"
         "{% if i > 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "02"),
        ("{% for i in [] %}{% else %}none{% endfor %}", "none"),
        ("{% set x %}{{ bos_token }}!{% endset %}{{ x }}{{ 'abc'[::-1] }}", "<s>!cba"),
        ("{% set f = 'a-b'.split %}{{ f('-')[1] }}{{ [1, 2] | tojson(indent=1) }}",
         "b[\n 1,\n 2\n]"),
        ("{{ 7 // 2 }} {{ -5 % 3 }} {{ 2 ** 10 }} {{ '-' * 3 }} {{ 7 / 2 }}", "3 1 1024 --- 3.5"),
        ("{{ 1 < 2 < 3 }} {{ 'H' in messages[0].content }} {{ tools is none }}", "True True True"),
        ("{{ strftime_now('%-d %B %Y, 100%%') }}", "26 July 2024, 100%"),
        ("{{ 'a' if tools }}|{{ x | default('d') }}{{ messages | last | length }}", "|d2"),
    ],
)  # fmt: skip
def test_the_language_that_templates_have(source: str, expected: str) -> None:
    assert render(source) == expected


SAME = [
    # Two ways to format a text.
    ("{{ 'Today is %s, %05.2f, %-4d|%%, %x %c' % ('x', 2.345, 7, 255, 65) }}",
     "Today is x, 02.35, 7   |%, ff A"),
    ("{{ '%s' % messages[0].content }}{{ '%s|' % nope }}{{ '%d' % true }}{{ '%5s' % none }}",
     " Hi <b> |1 None"),
    ("{{ '%(role)s: %(content)s' % messages[0] }}{{ 'no place' % {} }}", "user:  Hi <b> no place"),
    ("{{ '%s and %.1f' | format('a', 2) }}{{ '%(x)s' | format(x=1) }}", "a and 2.01"),
    ("{{ '{} {}'.format('a', 2) }}{{ '{1}{0}{n}'.format('a', 2, n=none) }}", "a 22aNone"),
    ("{{ '{:>5}|{:,}|{:.2f}|{!s:^5}|{{}}'.format('a', 12345, 2, true) }}",
     "    a|12,345|2.00|True |{}"),
    # Blocks.
    ("{% macro box(a) %}[{{ caller(a) }}]{% endmacro %}{% call(x) box('q') %}{{ x }}{{ bos_token }}"
     "{% endcall %}", "[q<s>]"),
    ("{% filter upper %}a{{ messages[0].role }}{% endfilter %}", "AUSER"),
    # Filters.
    ("{{ [1, 2, 3] | sum }}{{ messages | map(attribute='role') | map('length') | sum(start=1) }}"
     "{{ [{'a': 2}, {'a': 3}] | sum('a') }}{{ [[1], [2]] | sum(start=[]) | length }}", "61852"),
    ("{% for role, said in messages | groupby('role') %}{{ role }}{{ said | length }}{% endfor %}"
     "{% for each in messages | groupby('role') %}{{ each.grouper }}{{ each.list[0].role }}"
     "{{ each[0] }}{% endfor %}", "assistant1user2assistantassistantassistantuseruseruser"),
    ("{{ [1, 2, 3] | batch(2, 0) | list | tojson }}{{ [1, 2, 3] | slice(2) | list | tojson }}",
     "[[1, 2], [3, 0]][[1, 2], [3]]"),
    ("{{ 'word ' * 9 | int }}{{ ('word ' * 9) | truncate(14) }}{{ 'abcdefghij' | truncate(4, true,"
     " '', 0) }}{{ 'a' | center(5) }}|{{ '<a&\"' | e }}{{ 'two words' | wordcount }}",
     "word word word word word word word word word word word...abcd  a  |&lt;a&amp;&#34;2"),
    ("{{ strftime_now('%I:%M %p') }}", "12:00 AM"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "expected"), SAME)
def test_what_templates_have_is_what_transformers_gives_them(source: str, expected: str) -> None:
    assert render(source) == theirs(source) == expected


@pytest.mark.parametrize(("source", "match"), [
    ("{{ '%s' % 1 }}", "formats a text, which templates here cannot: join its parts with ~"),
    ("{{ '{}'.format(1) }}", "formats a text, which templates here cannot"),
    ("{{ '{}'['format'](1) }}", "formats a text, which templates here cannot"),
    ("{% if 1 %}{{ '%s' | format(1) }}{% endif %}", "No filter named 'format' found"),
    ("{% if 1 %}{{ [1] | sum }}{% endif %}", "No filter named 'sum' found"),
    ("{{ strftime_now('%p') }}", "unknown date format '%p'"),
])  # fmt: skip
def test_runs_of_older_rules_refuse_what_they_refused(source: str, match: str) -> None:
    with pytest.raises(RequestRejected, match=match):
        ChatTemplate(source, DATE, old=True).render({"messages": TURNS})


REFUSED = [
    # No randomness and no state between calls.
    ("{% if 1 %}{{ messages | random }}{% endif %}", "No filter named 'random' found"),
    ("{% if 1 %}{{ messages | pprint }}{% endif %}", "No filter named 'pprint' found"),
    ("{{ lipsum() }}", "'lipsum' is undefined"),
    ("{{ cycler('a') }}", "'cycler' is undefined"),
    ("{{ joiner() }}", "'joiner' is undefined"),
    ("{{ messages[0].keys() - [] }}", "has list - list"),
    # No text of an object.
    ("{{ messages[0].items }}", "prints a method"),
    ("{{ messages[0].items | string }}", "prints a method"),
    ("{{ 'a' ~ messages[0].items }}", "prints a method"),
    ("{{ 'a'.upper ~ 'b' }}", "prints a method"),
    ("{{ '%s' % range }}", "prints a function"),
    ("{{ '%s' % messages }}", "prints a list"),
    ("{{ '%s' % [1] }}", "prints a list"),
    ("{{ '{}'.format(messages[0]) }}", "prints a dict"),
    ("{{ '%r' % 1 }}", "formats a text with '%r', which is not known here"),
    ("{{ '{!r}'.format(1) }}", "formats a text with {!r}, which is not known here"),
    ("{{ '{0.real}'.format(1) }}", "formats a text with {0.real}, which is not known here"),
    ("{{ '{0[a]}'.format(messages) }}", "not known here"),
    ("{{ '{:{}}'.format(1, 2) }}", "not known here"),
    ("{{ '%*d' % (5, 1) }}", "not known here"),
    ("{{ '{:n}'.format(1) }}", "not known here"),
    ("{{ 'a%' % () }}", "formats a text with '%', which is not known here"),
    ("{{ '%s%s' % 'a' }}", "formats a text with 1 values, and it has places for more"),
    ("{{ '%s' % ('a', 'b') }}", "formats a text with 2 values, and it has places for 1"),
    ("{{ '%(a)s' % 'a' }}", "formats a text that has names with a str"),
    ("{{ '{a}'.format(b=1) }}", "formats a text without a value for 'a'"),
    ("{{ '{}'.format() }}", "formats a text with 0 values, and it has places for more"),
    ("{% if 1 %}{{ [1] | urlize }}{% endif %}", "No filter named 'urlize' found"),
    ("{% call range(5) %}{% endcall %}", "calls a function with a block"),
    ("{% call dict() %}{% endcall %}", "calls a function with a block"),
    ("{% filter list %}a{% endfilter %}", "prints a list"),
    ("{{ messages | groupby('role') }}", "prints a list"),
    ("{{ (messages | groupby('role'))[0] }}", "prints a Group"),
    ("{{ [range] | join }}", "prints a function"),
    ("{{ [range] | map('string') | join }}", "prints a function"),
    ("{{ ','.join([range]) }}", "joins a function"),
    ("{{ range | upper }}", "prints a function"),
    ("{{ [range] | tojson }}", "raises TypeError$"),
    ("{{ [range] }}", "prints a list"),
    ("{{ messages[0] }}", "prints a dict"),
    ("{{ namespace(a=1) }}", "prints a namespace"),
    ("{% macro m() %}{% endmacro %}{{ m }}", "prints a macro"),
    ("{% for m in messages %}{{ loop }}{% endfor %}", "prints a loop"),
    ("{{ self }}", "prints a TemplateReference"),
    ("{{ raise_exception(range) }}", "prints a function"),
    ("{{ messages[range] }}", "has a function as index"),
    ("{{ [1].index(range) }}", "raises ValueError$"),
    ("{{ 'a'.encode() }}", "has no attribute 'encode'"),
    ("{{ ''.__class__.__mro__ }}", "has no attribute '__class__'"),
    ("{{ messages.append(1) }}", "has no attribute 'append'"),
    ("{{ strftime_now('%s') }}", "unknown date format '%s'"),
    # No work without end.
    ("{% for i in range(100001) %}{% endfor %}", "range of more than 100000"),
    ("{% for i in range(-9, 9223372036854775807) %}{% endfor %}", "range of more than 100000"),
    ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
     "takes more than 1000000 steps"),
    ("{% set ns = namespace(x=[1]) %}{% for i in range(25) %}{% set ns.x = [ns.x, ns.x] %}"
     "{% endfor %}{{ ns.x == ns.x }}", "takes more than 1000000 steps"),
    ("{% set ns = namespace(x=[1]) %}{% for i in range(25) %}{% set ns.x = [ns.x, ns.x] %}"
     "{% endfor %}{{ ns.x | tojson }}", "takes more than 1000000 steps"),
    ("{% set ns = namespace(x=1) %}{% for i in range(50000) %}{% set ns.x = (ns.x,) %}{% endfor %}"
     "{{ [ns.x] | unique | list }}", "nested deeper than 32"),
    ("{{ {(1, 2): 3} }}", "has a tuple as key"),
    ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "nests macros deeper than 32"),
    ("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(30) }}",
     "takes more than 1000000 steps"),
    ("{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}"
     "{% endfor %}", "text longer than 1048576"),
    ("{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}"
     "{% endfor %}", "text longer than 1048576"),
    ("{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set y %}{{ ns.x }}{{ ns.x }}"
     "{% endset %}{% set ns.x = y %}{% endfor %}", "text longer than 1048576"),
    ("{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}"
     "{% endfor %}", "list longer than 1048576"),
    ("{{ 'a' * 10000000000 }}", r"\* gives more than 1048576"),
    ("{{ ('a' * 1000000).replace('a', 'b' * 1000) }}", "text longer than 1048576"),
    ("{{ ('a' * 1000000) | replace('', 'b' * 1000) }}", "text longer than 1048576"),
    ("{{ ('a' * 1000000).join(['b'] * 9999) }}", "text longer than 1048576"),
    ("{{ 'a'.center(10000000000) }}", "text longer than 1048576"),
    ("{{ 'a' | center(10000000000) }}", "text longer than 1048576"),
    ("{{ '%9999999999d' % 1 }}", "formats a text with '%9999999', which is not known here"),
    ("{{ '%.9999999999f' % 1 }}", "not known here"),
    ("{{ '{:9999999999}'.format(1) }}", "not known here"),
    ("{{ ('%9999d' * 1000) % (1,) }}", "places for more"),
    ("{{ ('%(a)9999d' * 100000) % {'a': 1} }}", "text longer than 1048576"),
    ("{{ ('{0:9999}' * 100000).format(1) }}", "text longer than 1048576"),
    ("{{ ('{0}' * 100).format('a' * 1000000) }}", "text longer than 1048576"),
    ("{{ [1] | batch(10000000000, 0) | list }}", "takes more than 1000000 steps"),
    ("{{ [1] | slice(10000000000, 0) | list }}", "takes more than 1000000 steps"),
    ("{{ [1] | batch(0) | list }}", "cuts a list into fewer than 1"),
    ("{{ [9223372036854775807, 9223372036854775807] | sum }}", "number beyond 64 bits"),
    ("{% macro m() %}{{ caller() }}{% endmacro %}{% for i in range(99999) %}{% call m() %}"
     "{% for j in range(99) %}{% endfor %}{% endcall %}{% endfor %}",
     "takes more than 1000000 steps"),
    ("{{ ('<' * 1000000) | e }}", "text longer than 1048576"),
    ("{{ 'a' | indent(10000000000, true) }}", "text longer than 1048576"),
    ("{{ [1] | tojson(indent=10000000000) }}", "indents JSON by more than 16"),
    ("{{ '%9999999999d' is odd }}", "test of integers"),
    ("{{ ('a' * 900000).rfind('b' * 400000) }}", "takes more than 1000000 steps"),
    ("{{ 10 ** 10 ** 10 }}", "number beyond 64 bits"),
    ("{{ 2 ** 65 }}", "out of bounds"),
    ("{{ 5 | round(-1000000000) }}", "more than 20 digits"),
    ("{{ [-9999999] | map('()') | list }}", "no such filter"),
    # Errors of Python itself.
    ("{{ 1 / 0 }}", "chat template: raises ZeroDivisionError$"),
    ("{{ 'a' + 1 }}", r"has str \+ int"),
    ("{{ tools.x.y }}", "'None' has no attribute 'x'"),
    ("{{ 1() }}", "calls a int"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "match"), REFUSED)
def test_what_templates_may_not_do_is_refused(source: str, match: str) -> None:
    template = ChatTemplate(source, DATE)
    texts = []
    for _ in range(2):
        with pytest.raises(RequestRejected, match=match) as caught:
            template.render({"messages": TURNS, "tools": None})
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert len(texts[0]) <= 300
    assert "0x" not in texts[0]
    assert "/" not in texts[0]


def test_another_process_refuses_with_the_same_texts() -> None:
    program = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('cases', sys.argv[1])\n"
        "cases = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(cases)\n"
        "for source, _ in cases.REFUSED:\n"
        "    try: cases.render(source)\n"
        "    except cases.RequestRejected as error: print(error)\n"
        "print(cases.render(cases.QWEN))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program, str(Path(__file__))],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert next(iter(outputs)).count(b"messages: chat template: ") == len(REFUSED)


def test_error_texts_are_cut() -> None:
    with pytest.raises(RequestRejected) as caught:
        render("{{ raise_exception('x' * 1000) }}")
    assert len(str(caught.value)) == 300


def test_output_is_bounded() -> None:
    with pytest.raises(RequestRejected, match="writes more than 8388608 characters"):
        render("{% for i in range(9999) %}{{ 'a' * 1000 }}{% endfor %}")


def test_steps_are_counted_per_rendering() -> None:
    template = ChatTemplate("{% for i in range(99999) %}{{ i }}{% endfor %}", DATE)
    assert len({template.render({}) for _ in range(4)}) == 1


def test_running_out_of_memory_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate("{{ 1 }}", DATE)

    def fail(value: Any) -> str:
        raise MemoryError

    monkeypatch.setattr(template_sandbox, "as_text", fail)
    with pytest.raises(MemoryError):
        template.render({})


def test_pythons_own_recursion_limit_gives_a_fixed_text(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate("{{ 1 }}", DATE)

    def fail(value: Any) -> str:
        raise RecursionError("maximum recursion depth exceeded in comparison")

    monkeypatch.setattr(template_sandbox, "as_text", fail)
    with pytest.raises(RequestRejected, match=r"chat template: nested too deep$"):
        template.render({})


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("{{ messages | random }}", "No filter named 'random'"),
        ("{{ messages | pprint }}", "No filter named 'pprint'"),
        ("{% include 'x' %}", r"Include is not allowed \(line 1\)"),
        ("{% import 'x' as x %}", "Import is not allowed"),
        ("{% block a %}{% endblock %}", "Block is not allowed"),
        ("{% autoescape true %}{% endautoescape %}", "is not allowed"),
        ("{% for x in y recursive %}{% endfor %}", "For is not allowed"),
        ("{{ 18446744073709551616 }}", "number beyond 64 bits"),
        ("{{ 1e999 }}", "not finite"),
        ("{{ " + "9" * 5000 + " }}", "digits"),
        ("{{ " + "(" * 25 + "1" + ")" * 25 + " }}", "nested deeper than 24 brackets"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested deeper than 24 brackets"),
        ("{{ " + "not " * 100 + "1 }}", "nested deeper than 24 brackets or 80 levels"),
        ("{{ " + "not " * 9999 + "1 }}", "nested deeper than 24 brackets or 80 levels"),
        ("{% for i in y %}" * 21 + "{% endfor %}" * 21, "too many statically nested blocks"),
        ("{% for %}", "Expected"),
    ],
)
def test_templates_that_cannot_be_are_refused_when_they_are_loaded(source: str, match: str) -> None:
    with pytest.raises(ModelRejected, match=match):
        ChatTemplate(source, DATE)


def test_the_deepest_template_leaves_room_on_the_stack() -> None:
    deep = "{{ " + "'a' + " * 75 + "'b' }}" + "{{ " + "(1 == " * 24 + "1" + ")" * 24 + " }}"
    macro = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(31) }}"

    def at(depth: int) -> str:
        return at(depth - 1) if depth else render(deep + macro)

    assert at(0) == at(300) == "a" * 75 + "b" + "True"
