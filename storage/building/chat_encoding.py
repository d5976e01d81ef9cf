"""From packed chats to token ids, and which of them are the assistant's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from ...config.errors import UserError
from ..tokens.store import dtype_for
from ..tokens.tokenizer import StoreTokenizer
from .chat_template import ChatTemplate, Span
from .inputs.chats import Chat

CHATML = "chatml"
_TOOL_USE = "tool_use"
_TEMPLATE, _CONFIG, _MAP = "chat_template.jinja", "tokenizer_config.json", "special_tokens_map.json"
_CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}
{{- '\n' }}
{%- else %}
{{- message['content'] + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ChatEncoder:
    """Renders and tokenizes chats as transformers' apply_chat_template does."""

    def __init__(self, tokenizer: StoreTokenizer, now: datetime) -> None:
        """Raises UserError if the tokenizer has no chat template that can be used."""
        self._dtype = dtype_for(tokenizer.vocab_size)
        self._templates = _open_templates(tokenizer, now)
        self._tokenizer = Tokenizer.from_str(tokenizer.tokenizer.to_str())
        self._tokenizer.encode_special_tokens = False  # what the template spells out is meant
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = np.array([number for number, token in added.items() if token.special], np.int64)
        self.end = np.array([tokenizer.end_of_document], self._dtype)

    def encode(self, lines: Sequence[str]) -> list[tuple[NDArray[Any], NDArray[np.uint8]]]:
        """Of each packed chat its token ids, in the store's dtype, and for each 1 if it is trained, else 0.

        Raises UserError naming the record.
        """
        chats = [Chat.unpack(line) for line in lines]
        templates = [self._templates.get(_TOOL_USE if chat.tools else "", self._templates[""]) for chat in chats]
        rendered = [template.render(chat) for template, chat in zip(templates, chats, strict=True)]
        encodings = self._tokenizer.encode_batch([text for text, _ in rendered], add_special_tokens=False)
        alike = zip(encodings, rendered, templates, strict=True)
        return [self._of(encoding, *each, template.marks_generation) for encoding, each, template in alike]

    def _of(
        self, encoding: Encoding, text: str, spans: list[Span], marked: bool
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        ids = np.array(encoding.ids, np.int64)
        trained = np.zeros(len(ids), np.uint8)
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        ends = np.maximum.accumulate(offsets[:, 1])
        starts = np.minimum.accumulate(offsets[::-1, 0])[::-1]
        for start, stop in spans:
            # Every token that has a character of it, also one that it shares with what stands before.
            first, last = int(np.searchsorted(ends, start, "right")), int(np.searchsorted(starts, stop, "left"))
            if not marked:
                last = self._end_of_turn(ids, first, last, (text, offsets, stop))
            trained[first:last] = 1
        return ids.astype(self._dtype), trained

    def _end_of_turn(
        self, ids: NDArray[np.int64], first: int, last: int, where: tuple[str, NDArray[np.int64], int]
    ) -> int:
        """The end of a turn without the white space that a template puts after its last special token."""
        text, offsets, stop = where
        special = np.flatnonzero(np.isin(ids[first:last], self._special))
        if not len(special):
            return last
        end = first + int(special[-1])
        return last if text[int(offsets[end, 1]) : stop].strip() else end + 1


def with_template(tokenizer: StoreTokenizer, named: str | None) -> StoreTokenizer:
    """The tokenizer with a chat template: its own, or the one of a file, or `chatml`; it goes into the store.

    Raises UserError if there is none, or it cannot be used.
    """
    if named is not None:
        text = _CHATML if named == CHATML else _read(Path(named))
        tokenizer = replace(tokenizer, files={**tokenizer.files, _TEMPLATE: text})
    ChatEncoder(tokenizer, datetime.now())
    return tokenizer


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"--chat-template {path}", str(reason), f"give a Jinja template, or {CHATML}") from None


def _open_templates(tokenizer: StoreTokenizer, now: datetime) -> dict[str, ChatTemplate]:
    """The template, by the empty name; and one for chats with tools, if the configuration has such a one."""
    files = tokenizer.files
    config = json.loads(files.get(_CONFIG, "{}"))
    texts = {"": files[_TEMPLATE]} if files.get(_TEMPLATE) else _of_config(config.get("chat_template"))
    if "" not in texts:
        problem = "not given, and the tokenizer has no chat template of its own"
        raise UserError("--chat-template", problem, f"give a Jinja file, or {CHATML} if the tokenizer has its tokens")
    if texts[""] == _CHATML:
        _check_chatml(tokenizer)
    special = {**json.loads(files.get(_MAP, "{}")), **config}
    try:
        return {name: ChatTemplate(text, _contents(special), now) for name, text in texts.items()}
    except ValueError as error:
        raise UserError("--chat-template", f"not a Jinja template ({error})", "mend it, or give another") from None


def _of_config(given: object) -> dict[str, str]:
    """tokenizer_config.json has one template, or several with names."""
    if isinstance(given, list):
        named = {each["name"]: each["template"] for each in given if isinstance(each, dict)}
        return {ours: named[name] for name, ours in (("default", ""), (_TOOL_USE, _TOOL_USE)) if name in named}
    return {"": given} if isinstance(given, str) else {}


def _check_chatml(tokenizer: StoreTokenizer) -> None:
    missing = [name for name in ("<|im_start|>", "<|im_end|>") if tokenizer.tokenizer.token_to_id(name) is None]
    if missing:
        problem = f"{CHATML}, but the tokenizer has no token {missing[0]}"
        raise UserError("--chat-template", problem, "give a template of the tokenizer's own tokens")


def _contents(special: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens as transformers gives them to a template."""
    values = {name: special[name] for name in _SPECIAL if special.get(name)}
    return {name: value["content"] if isinstance(value, dict) else value for name, value in values.items()}
