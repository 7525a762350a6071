"""`swapproof proof verify` checks a proof with the public keys alone. It needs no installation,
so that anyone can check a swap.
"""

from pathlib import Path
from typing import Final

import click

from harness.frame.formatting import escape_controls
from harness.interfaces.cli.frame.command import (
    EXISTING_FILE,
    LazyCommand,
    arg,
    command,
    opt,
)

VERIFY: Final = LazyCommand(
    "harness.interfaces.cli.proposals.proof_verification:verify",
    "Verify a proof, and print what it shows.",
)
DOES_NOT_HOLD_CODE: Final = 1


@command(example="swapproof proof verify proof.json --key .swapproof/signing.pub")
def verify(
    file: Path = arg(type=EXISTING_FILE),
    *,
    key: Path = opt(
        "The installation's public keys: its file `signing.pub`.",
        type=EXISTING_FILE,
    ),
) -> int:
    """Verify a proof, and print what it shows.

    Needs no configuration. Checks each signature, computes the verdict again, and checks that
    plan, margin and alpha were registered before the first answer. Exit code 1 if a check
    fails.
    """
    from harness.app.proof import verify_proof  # noqa: PLC0415 - `--help` stays quick
    from harness.interfaces.cli.frame import output  # noqa: PLC0415 - as above

    result = verify_proof(file, key)
    if not output.documented({"holds": result.holds, "found": result}):
        for sentence in result.shown:
            click.echo(escape_controls(sentence))
        for fault in result.faults:
            click.echo(f"DOES NOT HOLD: {escape_controls(fault)}")
        click.echo("The proof holds." if result.holds else "The proof does not hold.")
    return 0 if result.holds else DOES_NOT_HOLD_CODE
