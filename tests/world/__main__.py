"""Prints the tables of the three corpora: `python -m tests.world`."""

import sys
from itertools import takewhile

from tests.world import answer_corpus, refusal_corpus, request_corpus

_TABLES = {
    "refusals": refusal_corpus.table,
    "answers": answer_corpus.table,
    "requests": request_corpus.table,
}

if __name__ == "__main__":
    for name, table in _TABLES.items():
        counts = takewhile(lambda line: not line.startswith("all "), table())
        total = next(line for line in table() if line.startswith("all "))
        sys.stdout.write("\n".join([f"# {name}", *counts, total, ""]))
