"""The kill switch: while it is on, nothing is sent to any broker."""

from dataclasses import dataclass
from pathlib import Path

from signals_core.errors import TradingHalted
from signals_core.files import write_bytes_atomic

FILE_NAME = "KILL"


@dataclass(frozen=True)
class KillSwitch:
    """On while the file exists, whatever is in it, or the setting `execution.halted` is true.

    A file, so that anybody and anything can pull it: `touch data/KILL` works where this program does not.
    """

    file: Path
    by_setting: bool = False

    def reason(self) -> str | None:
        """Why nothing is sent; None while the switch is off."""
        if self.by_setting:
            return "the setting execution.halted is true"
        if not self.file.exists():
            return None
        text = self.file.read_text(errors="replace").strip()
        return f"{self.file.name} says: {text}" if text else f"{self.file.name} exists"

    def check(self) -> None:
        """Go on.

        Raises:
            TradingHalted: the switch is on.
        """
        reason = self.reason()
        if reason is not None:
            raise TradingHalted(f"trading is halted ({reason}): nothing is sent; `signals orders resume` ends it")

    def halt(self, reason: str) -> None:
        """Switch on."""
        write_bytes_atomic(self.file, f"{reason}\n".encode())

    def resume(self) -> None:
        """Switch off.

        Raises:
            TradingHalted: the setting holds it on.
        """
        self.file.unlink(missing_ok=True)
        self.check()
