"""A chat template, rendered as transformers renders it, and which parts of the text are the assistant's."""

import json
import re
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .inputs.base import bad
from .inputs.chats import ASSISTANT, Chat

Span = tuple[int, int]
"""First character, and the first after it."""
_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_PRIVATE = range(0xF0000, 0xFFFFD)  # characters that no standard gives a meaning
_MARK_IT = "give a --chat-template that has {% generation %} around what the assistant says"


class ChatTemplate:
    """One template of one tokenizer."""

    def __init__(self, text: str, special_tokens: dict[str, str], now: datetime) -> None:
        """`special_tokens` are variables such as bos_token; `now` is what strftime_now tells.

        Raises ValueError saying what is wrong with the template.
        """
        self._environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        self._environment.filters["tojson"] = _to_json
        self._environment.globals["raise_exception"] = _raise
        self._environment.globals["strftime_now"] = now.strftime
        try:
            self._template = self._environment.from_string(text)
        except TemplateError as error:
            raise ValueError(str(error)) from None
        self._special_tokens, self.marks_generation = special_tokens, bool(_GENERATION.search(text))

    def render(self, chat: Chat) -> tuple[str, list[Span]]:
        """The text of a chat and the assistant's parts of it, ascending.

        These are the {% generation %} blocks if the template has them; else, of each turn of the assistant, what the
        conversation with it has beyond the one before it with a generation prompt. Raises UserError naming file and
        place where the template refuses the chat, or that cannot be told.
        """
        text = self._render(chat, chat.messages)
        spans = self._marked(chat, text) if self.marks_generation else self._by_prefix(chat, text)
        if not any(start < stop for start, stop in spans):
            raise bad(chat.path, f"{chat.place}: the chat template marks nothing as the assistant's", _MARK_IT)
        return text, spans

    def _by_prefix(self, chat: Chat, text: str) -> list[Span]:
        spans = []
        for number, message in enumerate(chat.messages):
            if message["role"] != ASSISTANT:
                continue
            asked = self._render(chat, chat.messages[:number], prompt=True)
            answered = self._render(chat, chat.messages[: number + 1]) if chat.messages[number + 1 :] else text
            start = len(asked)
            if not answered.startswith(asked):  # some prompt for more than stands there, such as <think>
                before = self._render(chat, chat.messages[:number])
                pairs = enumerate(zip(asked, answered, strict=False))
                start = next((place for place, (one, other) in pairs if one != other), len(answered))
                if start < len(before):
                    raise self._not_a_prefix(chat, number, "the messages before it")
            if not text.startswith(answered):
                raise self._not_a_prefix(chat, number, "it")
            spans.append((start, len(answered)))
        return spans

    def _not_a_prefix(self, chat: Chat, number: int, what: str) -> Exception:
        problem = (
            f"the chat template renders {what} otherwise when others follow, so what is the assistant's in message"
        )
        return bad(chat.path, f"{chat.place}: {problem} {number} is not clear", _MARK_IT)

    def _marked(self, chat: Chat, text: str) -> list[Span]:
        """Rendered again with a mark before and after each block."""
        left, right = islice((mark for mark in map(chr, _PRIVATE) if mark not in text), 2)
        pieces = re.split(f"([{left}{right}])", self._render(chat, chat.messages, marks=(left, right)))
        spans, length, start = [], 0, 0
        for piece in pieces:
            if piece == left:
                start = length
            elif piece == right:
                spans.append((start, length))
            else:
                length += len(piece)
        if "".join(piece for piece in pieces if piece not in (left, right)) != text:
            problem = "the chat template changes the text of its {% generation %} blocks afterwards"
            raise bad(chat.path, f"{chat.place}: {problem}", "put the blocks around what is printed as it is")
        return spans

    def _render(
        self, chat: Chat, messages: list[dict[str, Any]], *, prompt: bool = False, marks: tuple[str, str] = ("", "")
    ) -> str:
        variables = {**self._special_tokens, "messages": messages, "tools": chat.tools, "documents": None}
        try:
            return self._template.render(**variables, add_generation_prompt=prompt, **{_Generation.variable: marks})
        except Exception as error:  # a template may do anything
            problem = f"the chat template refuses it ({' '.join(str(error).split()) or type(error).__name__})"
            raise bad(
                chat.path, f"{chat.place}: {problem}", "mend or remove the record, or give a --chat-template"
            ) from None


class _Generation(Extension):
    """{% generation %}: what is inside is printed between two marks."""

    tags = {"generation"}  # noqa: RUF012  jinja's name
    variable = "trainwright_marks"

    def parse(self, parser: Parser) -> nodes.Node:
        """From the tag to its end."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_between_marks", [nodes.Name(self.variable, "load")])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _between_marks(self, marks: tuple[str, str], caller: Callable[[], str]) -> str:
        return f"{marks[0]}{caller()}{marks[1]}"


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter writes <, > and & otherwise."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)
