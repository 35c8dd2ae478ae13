"""The recipe of the bundled tiny chat model; tools/make_tiny_chat.py runs it from top to bottom."""
