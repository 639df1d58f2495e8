"""How long work tells how far it is: one interface, silent by default."""


class Progress:
    """What a stage reports to; this one is silent, the command line shows bars."""

    def start(self, stage: str, total: int, unit: str, done: int = 0) -> None:
        """Begin ``stage`` of ``total`` units, ``done`` of which an earlier run has finished."""

    def advance(self, amount: int, **live: float) -> None:
        """Say that ``amount`` more units are done; ``live`` are figures to show beside the bar."""

    def finish(self, note: str = "") -> None:
        """End the stage, leaving ``note`` behind it."""

    def say(self, message: str) -> None:
        """Show one line that stays."""
