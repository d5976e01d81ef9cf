"""Chats become the tokens that transformers' apply_chat_template gives, and only what the assistant says is trained."""

import json
import random
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from tokenizers import Tokenizer

from trainwright.config.errors import UserError
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.tokens.reader import TokenStore, open_store

from ..chats import CHATML, ENDS, LLAMA3, TEMPLATES, TOOLS, draw_chat, write_chats, write_tokenizer
from ..conftest import quiet
from .same import assert_same, killed
from .same import build as build_apart

CHAT = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]


def build(source: Path, tokenizer: Path, **options: Any) -> TokenStore:
    store = source.with_suffix(".zarr")
    options = {"tokenizer": tokenizer, "chat": True, "shard_tokens": 2048, "workers": 1, **options}
    build_store([source], store, BuildOptions(**options), quiet)
    return open_store(store)


def documents(store: TokenStore) -> list[tuple[list[int], list[int]]]:
    """Token ids and mask of each document."""
    assert store.loss_mask is not None
    starts = [*store.document_index.within(0, store.num_tokens).tolist(), store.num_tokens]
    return [(store.read(*pair).tolist(), store.loss_mask.read(*pair).tolist()) for pair in pairwise(starts)]


def trained_texts(tokenizer: Tokenizer, ids: list[int], mask: list[int]) -> list[str]:
    """Text of each run of trained tokens."""
    edges = np.flatnonzero(np.diff([0, *mask, 0])).reshape(-1, 2).tolist()
    return [tokenizer.decode(ids[first:last], skip_special_tokens=False) for first, last in edges]


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_as_transformers(tmp_path: Path, rng: random.Random, name: str) -> None:
    from transformers import PreTrainedTokenizerFast

    folder = write_tokenizer(tmp_path / "tokenizer", name)
    chats = [draw_chat(rng) for _ in range(40)]
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
    more: dict[str, Any] = {}
    if name == "tools":
        more = {"tools": json.dumps(tools)}
        call = {"id": "1", "function": {"name": "look_up", "arguments": {"word": "<数据>"}}}
        chats.append([CHAT[0], {"role": "assistant", "content": None, "tool_calls": [call, call]}])
    store = build(write_chats(tmp_path / "chats.jsonl", chats, **more), folder)
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    end = store.info.end_of_document
    for (ids, mask), chat in zip(documents(store), chats, strict=True):
        given = {"tools": tools} if more else {}
        expected = theirs.apply_chat_template(chat, tokenize=True, return_dict=False, **given)
        assert ids == (expected if expected[-1] == end else [*expected, end])
        said = [message["content"] for message in chat if message["role"] == "assistant"]
        texts = trained_texts(theirs.backend_tokenizer, ids, mask)
        if None in said:
            assert texts[-1].startswith('{\n "name": "look_up"')
            continue
        said = [text.strip() for text in said] if name == "llama3" else said
        lead = " " if name == "mistral" else ""
        for text, wanted in zip(texts, said, strict=True):
            assert text in _also_shared(lead + wanted + ENDS[name]), (text, wanted)
        if name == "generation":
            both = theirs.apply_chat_template(chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
            assert mask[: len(expected)] == both["assistant_masks"]


def _also_shared(text: str) -> tuple[str, str]:
    """A token that the turn shares with what stands before it, its line feed, is trained."""
    return text, "\n" + text


def test_the_built_in_template_needs_its_tokens(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "tokenizer")
    source = write_chats(tmp_path / "chats.jsonl", [CHAT])
    with pytest.raises(UserError, match="--chat-template: not given, and the tokenizer has no chat template"):
        build(source, folder)
    store = build(source, folder, chat_template="chatml")
    assert "generation" in (store.tokenizer_folder / "chat_template.jinja").read_bytes().decode()
    ((ids, mask),) = documents(store)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nworld<|im_end|>\n<|endoftext|>"
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert trained_texts(tokenizer, ids, mask) == ["world<|im_end|>"]
    assert store.info.trained_tokens == sum(mask)
    other = tmp_path / "other"
    other.mkdir()
    text = (folder / "tokenizer.json").read_text().replace("<|im_start|>", "<|im_begin|>")
    (other / "tokenizer.json").write_text(text)
    shutil.copy(folder / "tokenizer_config.json", other)
    with pytest.raises(UserError, match="chatml, but the tokenizer has no token <"):
        build(write_chats(tmp_path / "again.jsonl", [CHAT]), other, chat_template="chatml")


def test_every_shape_of_record_gives_the_same(tmp_path: Path, rng: random.Random) -> None:
    folder = write_tokenizer(tmp_path / "tokenizer", "chatml")
    chats = [draw_chat(rng, system=False)[:2] for _ in range(50)]
    expected = documents(build(write_chats(tmp_path / "messages.jsonl", chats), folder))
    names = {"user": "human", "assistant": "gpt"}
    shapes: dict[str, list[dict[str, Any]]] = {
        "conversations": [
            {"conversations": [{"from": names[turn["role"]], "value": turn["content"]} for turn in chat]}
            for chat in chats
        ],
        "pairs": [{"prompt": chat[0]["content"], "completion": chat[1]["content"]} for chat in chats],
        "nulls": [{"messages": [{**turn, "tool_calls": None} for turn in chat], "prompt": None} for chat in chats],
        "named": [{"turns": chat, "messages": 3} for chat in chats],
    }
    for name, records in shapes.items():
        field = {"field": "turns"} if name == "named" else {}
        source = tmp_path / f"{name}.jsonl"
        source.write_text("".join(json.dumps(record) + "\n" for record in records))
        assert documents(build(source, folder, **field)) == expected, name
        table = pyarrow.Table.from_pylist(records)
        pyarrow.parquet.write_table(table, tmp_path / f"{name}-p.parquet", row_group_size=7)
        assert documents(build(tmp_path / f"{name}-p.parquet", folder, **field)) == expected, name
        with pyarrow.OSFile(str(tmp_path / f"{name}-a.arrow"), "wb") as file:
            with pyarrow.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table, max_chunksize=9)
        assert documents(build(tmp_path / f"{name}-a.arrow", folder, **field)) == expected, name


def test_workers_and_parts_do_not_show(tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_tokenizer(tmp_path / "tokenizer", "chatml")
    chats = [draw_chat(rng) for _ in range(200)]
    whole = documents(build(write_chats(tmp_path / "whole.jsonl", chats), folder))
    monkeypatch.setattr("trainwright.storage.building.parts.MIN_PART_BYTES", 5000)
    parts = build(write_chats(tmp_path / "parts.jsonl", chats), folder, workers=2)
    assert documents(parts) == whole
    lines = (tmp_path / "parts.jsonl").read_text().splitlines()
    lines[150] = json.dumps({"messages": [*CHAT, {"role": "user", "content": 3}]})
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"bad\.jsonl: line 151: 'messages': the content of message 2 is of type int"):
        build(tmp_path / "bad.jsonl", folder)


FORGETS = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' and not loop.last %}{{- message.content.split('</think>')[-1] }}
    {%- else %}{{- message.content }}{% endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
PROMPTS_FOR_MORE = FORGETS.replace("assistant\\n' }}{% endif %}", "assistant\\n<think>\\n' }}{% endif %}")


def test_what_is_the_assistants_is_clear_or_an_error(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "tokenizer")
    (tmp_path / "t.jinja").write_text(FORGETS)
    (tmp_path / "p.jinja").write_text(PROMPTS_FOR_MORE)
    thought = [CHAT[0], {"role": "assistant", "content": "so</think>world"}]
    store = build(write_chats(tmp_path / "one.jsonl", [thought]), folder, chat_template=str(tmp_path / "t.jinja"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert trained_texts(tokenizer, *documents(store)[0]) == ["so</think>world<|im_end|>"]
    more = build(write_chats(tmp_path / "more.jsonl", [CHAT]), folder, chat_template=str(tmp_path / "p.jinja"))
    assert trained_texts(tokenizer, *documents(more)[0]) == ["world<|im_end|>"]
    source = write_chats(tmp_path / "two.jsonl", [CHAT, [*thought, *CHAT]])
    with pytest.raises(UserError) as caught:
        build(source, folder, chat_template=str(tmp_path / "t.jinja"))
    assert "two.jsonl: line 2: the chat template renders it otherwise when others follow" in str(caught.value)
    assert "message 1 is not clear; give a --chat-template that has {% generation %}" in str(caught.value)
    with pytest.raises(UserError, match=r"line 1: the chat template refuses it \(After the optional system message"):
        build(write_chats(tmp_path / "x.jsonl", [[*CHAT, CHAT[1]]]), write_tokenizer(tmp_path / "mistral", "mistral"))


def test_one_of_several_templates(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    folder = write_tokenizer(tmp_path / "tokenizer")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    named = {"other": LLAMA3, "default": CHATML, "tool_use": TOOLS}
    config["chat_template"] = [{"name": name, "template": text} for name, text in named.items()]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    theirs, tools = PreTrainedTokenizerFast.from_pretrained(folder), [{"type": "function", "function": {"name": "f"}}]
    source = tmp_path / "chats.jsonl"
    source.write_text("".join(json.dumps({"messages": CHAT, "tools": each}) + "\n" for each in (None, tools)))
    found = [ids[:-1] for ids, _ in documents(build(source, folder))]
    expected = [theirs.apply_chat_template(CHAT, tools=each, return_dict=False) for each in (None, tools)]
    assert found == expected
    assert found[0] != found[1]


def test_a_template_that_marks_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{% generation %}{% endgeneration %}{{ messages[0].content }}")
    source = write_chats(tmp_path / "chats.jsonl", [CHAT])
    with pytest.raises(UserError, match="line 1: the chat template marks nothing as the assistant's"):
        build(source, write_tokenizer(tmp_path / "tokenizer"), chat_template=str(tmp_path / "t.jinja"))


def test_a_build_that_was_killed_goes_on(tmp_path: Path, rng: random.Random) -> None:
    folder = write_tokenizer(tmp_path / "tokenizer", "llama3")
    source = write_chats(tmp_path / "chats.jsonl", [draw_chat(rng) for _ in range(600)])
    options = ("--chat", "--tokenizer", folder, "--shard-tokens", 8192)
    assert build_apart(source, tmp_path / "wanted.zarr", *options, "--workers", 1) == ""
    killed(source, tmp_path / "s.zarr", *options, step=rng.randrange(24, 40))
    assert "goes on where it was" in build_apart(source, tmp_path / "s.zarr", *options, "--workers", 2)
    assert_same(tmp_path / "wanted.zarr", tmp_path / "s.zarr")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"text": "x"}, r"line 1: no chat \(there are: text\)"),
        ({"prompt": "x"}, r"line 1: no chat \(there are: prompt\)"),
        ({"prompt": [1], "completion": "x"}, "'prompt': what is the user's is of type list, not a text"),
        ({"messages": "x"}, "'messages': of type str, not a list of messages"),
        ({"messages": CHAT[:1]}, "no message is the assistant's"),
        ({"messages": [{"content": "x"}]}, "message 0 has no role"),
        ({"messages": [{"role": "user"}, CHAT[1]]}, "the content of message 0 is of type NoneType, not a text"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "message 0 is of type list, not a text"),
        ({"conversations": [{"from": "narrator", "value": "x"}]}, "message 0 is from 'narrator', not one of human"),
        ({"messages": CHAT, "tools": "{"}, "its tools are a text that is not JSON"),
        ({"messages": CHAT, "tools": 3}, "its tools are of type int, not a list"),
        ({"messages": [{"role": "user", "content": "\ud800"}, CHAT[1]]}, "holds half of a surrogate pair"),
    ],
)
def test_what_is_no_chat_is_named(tmp_path: Path, record: dict[str, Any], words: str) -> None:
    (tmp_path / "chats.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(UserError, match=words) as caught:
        build(tmp_path / "chats.jsonl", write_tokenizer(tmp_path / "tokenizer", "chatml"))
    assert "chats.jsonl: line 1: " in str(caught.value)
    assert [path.name for path in tmp_path.iterdir() if "zarr" in path.name] == []


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "tokenizer", "chatml")
    (tmp_path / "text.txt").write_text("x")
    with pytest.raises(UserError, match="--chat, but text has no records"):
        build(tmp_path / "text.txt", folder)
    source = write_chats(tmp_path / "chats.jsonl", [CHAT])
    with pytest.raises(UserError, match="--tokenizer: not given, and chats are rendered for a model"):
        build_store([source], tmp_path / "s.zarr", BuildOptions(chat=True), quiet)
    with pytest.raises(UserError, match="--chat-template: given without --chat"):
        BuildOptions(chat_template="chatml").check()
    (tmp_path / "bad.jinja").write_text("{% for %}")
    with pytest.raises(UserError, match="--chat-template: not a Jinja template"):
        build(source, folder, chat_template=str(tmp_path / "bad.jinja"))
    with pytest.raises(UserError, match=r"nowhere\.jinja: No such file"):
        build(source, folder, chat_template=str(tmp_path / "nowhere.jinja"))
