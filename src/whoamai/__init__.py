"""whoamai: give a chat model a new name, with proof that it took."""

__version__ = "0.1.0"
