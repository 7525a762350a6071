"""Every place of content is named once, and a text comes back from its column as it went in."""

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.privacy.stored_content import COLUMNS, OTHER_COLUMNS, USERS, Encryption
from harness.runtime.encryption import FernetCipher, new_key
from harness.store.content_cipher import ENCRYPTED, PLAIN, ContentCipher
from harness.store.schema import metadata
from harness.store.schema.columns import ContentJson, ContentText, Day, UtcTime

pytestmark = pytest.mark.req("G4")
OLD, NEW = new_key(), new_key()
OF_OLD = FernetCipher(lambda: [OLD])
AFTER = FernetCipher(lambda: [NEW, OLD])
texts = st.text() | st.builds(
    "{}{}".format, st.sampled_from([ENCRYPTED, PLAIN]), st.text(max_size=5)
)


def test_each_column_that_can_hold_text_is_classified_and_content_is_encrypted() -> None:
    listed = [(row.table, row.column) for row in (*COLUMNS, *USERS)]
    listed += [
        (table, name) for table, names in OTHER_COLUMNS.items() for name in names.split()
    ]
    stored = {
        (table.name, column.name): column
        for table in metadata.tables.values()
        for column in table.columns
        if not isinstance(column.type, sa.BigInteger | sa.Boolean | sa.Double | Day | UtcTime)
    }
    assert sorted(listed) == sorted(stored)
    encrypted = {
        place
        for place, column in stored.items()
        if isinstance(column.type, ContentJson | ContentText)
    }
    said = {(r.table, r.column) for r in COLUMNS if r.encryption is Encryption.COLUMN}
    assert encrypted == said


@given(text=texts, encrypts=st.booleans(), later=st.booleans())
def test_content_comes_back_as_it_went_in_also_after_a_rotation(
    text: str, *, encrypts: bool, later: bool
) -> None:
    stored = ContentCipher(OF_OLD, encrypts=encrypts).to_stored(text)
    assert stored.startswith(ENCRYPTED) == (encrypts and bool(text))
    after = ContentCipher(AFTER, encrypts=later)
    assert after.from_stored(stored) == text

    renewed = after.renew(stored)

    if renewed is None:
        assert not text or not (encrypts or later)
    else:
        assert (
            ContentCipher(FernetCipher(lambda: [NEW]), encrypts=False).from_stored(renewed)
            == text
        )
        assert after.renew(renewed) is None
