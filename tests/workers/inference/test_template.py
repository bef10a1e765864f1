"""Chat templates: what real ones render, and that the rest is refused the same way every time."""

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
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
    ],
)
def test_real_templates_render_what_they_should(
    source: str, turns: list[dict[str, str]], expected: str
) -> None:
    assert render(source, turns) == expected
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    plain.globals["strftime_now"] = DATE.strftime
    variables = {"messages": turns, "add_generation_prompt": True, "tools": None}
    assert expected == plain.from_string(source).render(
        **variables, bos_token="<s>", eos_token="</s>"
    )


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
    ("{{ '%s' % 1 }}", "formats a text, which templates here cannot: join its parts with ~"),
    ("{{ '{}'.format(1) }}", "formats a text, which templates here cannot"),
    ("{{ '{}'['format'](1) }}", "formats a text, which templates here cannot"),
    ("{% if 1 %}{{ '%s' | format(1) }}{% endif %}", "No filter named 'format' found"),
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
