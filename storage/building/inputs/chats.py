"""Chat records: messages as OpenAI and Hugging Face write them, ShareGPT's conversations, prompt and completion.

Between reader and encoder a chat is one line of JSON, as a text is one string.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ....config.errors import UserError
from .base import bad, text_of

ASSISTANT = "assistant"
_COLUMNS = ("messages", "conversations", "prompt", "completion")
_TOOLS = "tools"
_SHAREGPT = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model"), ASSISTANT),
    "system": "system",
    **dict.fromkeys(("tool", "observation", "function_response"), "tool"),
}
_SHAPES = "write messages: [{role, content}, ...], ShareGPT's conversations, or prompt and completion"


@dataclass(frozen=True)
class Chat:
    """One record."""

    path: str
    place: str
    """Where in the file it stands, for messages to the user."""
    messages: list[dict[str, Any]]
    tools: list[Any] | None

    def pack(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def unpack(cls, line: str) -> "Chat":
        """What `pack` made."""
        return cls(**json.loads(line))


def chat_columns(path: str, names: Sequence[str], field: str) -> list[str]:
    """Those columns that hold chats, of a file that has these; `field` is empty where none was named.

    Raises UserError if there is none.
    """
    wanted = (field,) if field else _COLUMNS
    found = [name for name in wanted if name in names]
    if not found:
        raise _no_chat(path, "", field, names)
    return [*found, *(name for name in names if name == _TOOLS)]


def pack_chat(record: dict[str, Any], path: str, place: str, field: str) -> str:
    """A record's chat as JSON. Raises UserError naming file and place where it is none."""
    name = field or next((name for name in _COLUMNS[:3] if record.get(name) is not None), "")
    if name not in record or (name == "prompt" and "completion" not in record):
        raise _no_chat(path, f"{place}: ", field, record)
    try:
        messages = _pair(record) if name == "prompt" and not field else _messages(record[name])
        tools = _tools(record.get(_TOOLS))
    except _Odd as odd:
        raise bad(path, f"{place}: {name!r}: {odd}", _SHAPES) from None
    packed = Chat(path, place, messages, tools).pack()
    return text_of(packed, path, place, name)


class _Odd(Exception):
    """What is wrong with a record, in words."""


def _messages(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise _Odd(f"of type {type(value).__name__}, not a list of messages")
    messages = [_message(number, each) for number, each in enumerate(value)]
    if not any(message["role"] == ASSISTANT for message in messages):
        raise _Odd("no message is the assistant's, so nothing of it would be trained")
    return messages


def _message(number: int, given: dict[str, Any]) -> dict[str, Any]:
    if "from" in given:
        role = _SHAREGPT.get(str(given["from"]))
        if role is None:
            raise _Odd(f"message {number} is from {given['from']!r}, not one of {', '.join(_SHAREGPT)}")
        given = {"role": role, "content": given.get("value")}
    if not isinstance(given.get("role"), str):
        raise _Odd(f"message {number} has no role")
    # Columns of nested records have null for every key that another record has.
    message = {key: value for key, value in given.items() if value is not None or key == "content"}
    content = message.get("content")
    if not isinstance(content, str) and not (content is None and len(message) > 1 + ("content" in message)):
        raise _Odd(f"the content of message {number} is of type {type(content).__name__}, not a text")
    return message


def _pair(record: dict[str, Any]) -> list[dict[str, Any]]:
    texts = {"user": record["prompt"], ASSISTANT: record["completion"]}
    for role, text in texts.items():
        if not isinstance(text, str):
            raise _Odd(f"what is the {role}'s is of type {type(text).__name__}, not a text")
    return [{"role": role, "content": text} for role, text in texts.items()]


def _tools(value: object) -> list[Any] | None:
    """Tools as a list; datasets often hold it as JSON, since its parts have no common form."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except ValueError:
            raise _Odd(f"its {_TOOLS} are a text that is not JSON") from None
    if value is not None and not isinstance(value, list):
        raise _Odd(f"its {_TOOLS} are of type {type(value).__name__}, not a list")
    return value or None


def _no_chat(path: str, place: str, field: str, names: Iterable[str]) -> UserError:
    known = ", ".join(sorted(names)[:8]) or "none"
    wanted = f"no field {field!r}" if field else "no chat"
    return bad(path, f"{place}{wanted} (there are: {known})", f"{_SHAPES}; or name the field with --field")
