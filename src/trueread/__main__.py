"""`python -m trueread` is `trueread`."""

from trueread.cli import main

main()
