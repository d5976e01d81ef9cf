"""Texts whose token ids go into a tokenizer's fingerprint: a tokenizer that splits one of them differently is another.

Never change a text: every stored fingerprint depends on all of them.
"""

CANARIES = (
    *("", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "a", " a", "z\n", "\u00a0", "\u200b", "\ufeff"),
    *("hello", "Hello", " hello world", "HELLO WORLD", "don't", "I'll we've", "naïve café", "cafe\u0301", "Straße"),
    *("0", "1234567890", "3.14159", "1,000,000", "0xFF", "1e-5", "2026-11-24", "12:34:56", "½ ² ①"),
    *("def f(x):\n    return x + 1\n", "if a==b: pass", "for(int i=0;i<n;++i){}", "#include <stdio.h>", "a->b::c"),
    *("    four spaces", "\ttab indented", "trailing   ", "snake_case_name", "camelCaseName", "__init__", "/usr/bin"),
    *("https://example.org/?q=1&r=2", "user@example.org", "<html></html>", '{"key": [1, 2]}', "$x^2 + y_1$", "!?..."),
    *("Привет мир", "你好世界", "こんにちは", "안녕하세요", "مرحبا بالعالم", "שלום", "नमस्ते", "สวัสดี"),
    *("😀", "👩‍👩‍👧‍👦", "🇩🇪", "<|endoftext|>", "</s>"),
)
