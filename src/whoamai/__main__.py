"""`python -m whoamai`."""

from whoamai.cli import main

main()
