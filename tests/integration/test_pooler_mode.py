"""A pooler in transaction mode is refused at the start, with its name."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.app.database import require_database, schema_state, upgrade_database
from harness.app.installation import load_settings
from harness.domain.errors import DatabaseUnusable
from tests.support.store.transaction_pooler import TransactionPooler

pytestmark = [pytest.mark.postgres, pytest.mark.req("G6")]


def test_a_pooler_in_transaction_mode_is_refused_by_whatever_uses_the_database(
    postgres_url: str, tmp_path: Path
) -> None:
    url = sa.make_url(postgres_url)
    file = tmp_path / "swapgate.yaml"
    with TransactionPooler(Path(f"{url.query['host']}/.s.PGSQL.5432")) as pooler:
        pooled = url.set(
            query={"sslmode": "disable", "gssencmode": "disable"},
            host="127.0.0.1",
            port=pooler.port,
        )
        file.write_text(f"database_url: {pooled.render_as_string(hide_password=False)}\n")
        settings = load_settings(file)
        for use in (require_database, schema_state, upgrade_database):
            with pytest.raises(DatabaseUnusable, match="pooler in transaction mode"):
                use(settings)

    file.write_text(f"database_url: {postgres_url}\n")
    require_database(load_settings(file))
