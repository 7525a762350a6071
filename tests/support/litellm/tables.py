"""Creates LiteLLM's tables by LiteLLM's own migrations."""

import sys
from pathlib import Path

import litellm_proxy_extras
import psycopg

folder = Path(litellm_proxy_extras.__file__).with_name("migrations")
with psycopg.connect(sys.argv[1], autocommit=True) as db:
    for file in sorted(folder.glob("*/migration.sql")):
        db.execute(file.read_text("utf-8"))
