"""A small tokenizer with the tokens of several models' chat templates, those templates, and chats."""

import json
import random
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from trainwright.storage.building.build import BuildOptions, build_store

from .conftest import quiet

CHATML = """\
{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LLAMA3 = """\
{% set loop_messages = messages %}{% for message in loop_messages %}\
{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' %}\
{% set content = content + message['content'] | trim + '<|eot_id|>' %}\
{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""
MISTRAL = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, conversation roles must alternate user/assistant') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.first and system_message is defined %}
            {{- ' [INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}
        {%- else %}
            {{- ' [INST] ' + message['content'] + ' [/INST]' }}
        {%- endif %}
    {%- else %}
        {{- ' ' + message['content'] + eos_token }}
    {%- endif %}
{%- endfor %}
"""
GENERATION = """\
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' %}
    {%- generation %}{{ message['content'] }}{{ '<|im_end|>' }}{% endgeneration %}
{%- else %}
    {{- message['content'] + '<|im_end|>' }}
{%- endif %}
{{ '\\n' }}
{%- endfor %}
"""
TOOLS = """\
{%- if tools %}{{ '<|im_start|>system\\n' + tools | tojson + '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
    {%- if message.tool_calls is defined %}
        {%- for call in message.tool_calls %}
            {{- '<|im_start|>assistant\\n' + call.function | tojson(indent=1) + '<|im_end|>\\n' }}
            {%- if loop.last %}{% break %}{% endif %}
        {%- endfor %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "mistral": MISTRAL, "generation": GENERATION, "tools": TOOLS}
ENDS = {
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "mistral": "</s>",
    "generation": "<|im_end|>",
    "tools": "<|im_end|>",
}
_SPECIAL = ["<|endoftext|>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
_SPECIAL += [
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]
_WORDS = [
    "hello",
    "world",
    "naïve",
    "数据",
    "x = y + 1",
    "<|im_end|>",
    "ok\n",
    "\nso",
    " spaced ",
    "[INST]",
    "{{ x }}",
    "<b>&",
]


def write_tokenizer(folder: Path, template: str | None = None) -> Path:
    """A byte-level BPE with special tokens; its end-of-document token is <|endoftext|>, or </s> for Mistral."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=_SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(_WORDS), "user assistant system tool\n\n"] * 3, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": {"content": "<s>", "__type": "AddedToken"},
        "eos_token": "</s>" if template == "mistral" else "<|endoftext|>",
    }
    if template == "llama3":  # newer tokenizers keep it in a file of its own
        (folder / "chat_template.jinja").write_text(TEMPLATES[template])
    elif template is not None:
        config["chat_template"] = TEMPLATES[template]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def draw_chat(rng: random.Random, *, system: bool = True) -> list[dict[str, Any]]:
    """Messages that alternate and end with the assistant's."""

    def text() -> str:
        return " ".join(rng.choices(_WORDS, k=rng.randrange(1, 12)))

    messages = [{"role": "system", "content": text()}] if system and rng.random() < 0.5 else []
    for _ in range(rng.randrange(1, 4)):
        messages += [{"role": "user", "content": text()}, {"role": "assistant", "content": text()}]
    return messages


def write_chats(path: Path, chats: list[list[dict[str, Any]]], **more: Any) -> Path:
    """As JSON lines."""
    path.write_text("".join(json.dumps({"messages": chat, **more}) + "\n" for chat in chats))
    return path


def chat_store(folder: Path, rng: random.Random, name: str = "chat", count: int = 60, **options: Any) -> Path:
    """A store of chats in ChatML with small shards; its tokenizer lies in `folder`."""
    tokenizer = folder / "tokenizer"
    if not tokenizer.is_dir():
        write_tokenizer(tokenizer)
    source = write_chats(folder / f"{name}.jsonl", [draw_chat(rng) for _ in range(count)])
    given = {"tokenizer": tokenizer, "chat": True, "chat_template": "chatml", "shard_tokens": 2048, **options}
    build_store([source], folder / f"{name}.zarr", BuildOptions(workers=1, **given), quiet)
    return folder / f"{name}.zarr"
