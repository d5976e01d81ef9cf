"""The token store: its format, writing, reading and checking it, and its tokenizer."""
