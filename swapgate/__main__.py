"""The command line as `python -m swapgate`: how our processes start one another."""

from harness.cli.main import main

if __name__ == "__main__":
    main()
