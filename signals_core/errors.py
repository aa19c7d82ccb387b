"""Domain errors. Each text says what was wrong, where, and what to do; each class has an exit code."""


class SignalsError(Exception):
    """Base of every error a user can act on."""

    exit_code = 1


class SettingsError(SignalsError):
    """A setting has an unknown name or an impossible value."""

    exit_code = 2


class DataError(SignalsError):
    """Input that breaks a frame's schema, or a stored file that is damaged."""

    exit_code = 3


class DamagedFile(DataError):
    """A stored file that does not match its checksums; it has been set aside."""


class ProviderError(SignalsError):
    """A source of market data did not answer, or not in its format; the text names the request, never a secret."""

    exit_code = 5


class GateError(SignalsError):
    """A model did not pass what it must pass."""

    exit_code = 3


class BundleError(SignalsError):
    """A model bundle that is damaged, incomplete or of a format this version cannot read."""

    exit_code = 3


class PromotionConflict(SignalsError):
    """The active version changed between the decision to promote and the promotion."""

    exit_code = 3


class MissingPrerequisite(SignalsError):
    """Something must be made first: bars, features, windows or a model."""

    exit_code = 4


class NoRows(MissingPrerequisite):
    """No ticker has a row in the span that was asked for: none was listed, or their bars are late."""


class ServiceDown(SignalsError):
    """A store is unreachable."""

    exit_code = 5


class ChannelError(SignalsError):
    """An alert channel did not take a message; the text never shows its secret."""

    exit_code = 5

    def __init__(self, text: str, transient: bool = False, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.transient, self.retry_after = transient, retry_after


class BrokerError(SignalsError):
    """A broker did not answer, refused access or contradicts what it said before; the text holds no secret."""

    exit_code = 5


class OutcomeUnknown(BrokerError):
    """An order was sent and its answer lost: the broker may have it or not. Ask for it by its client order id."""


class OrderRejected(SignalsError):
    """The broker refused an order for good; it has not become part of the account."""

    exit_code = 3


class OrderConflict(SignalsError):
    """An order would change in a way that it cannot, or differs from another with the same client order id."""

    exit_code = 3


class TradingHalted(SignalsError):
    """The kill switch is on: nothing is sent."""

    exit_code = 3
