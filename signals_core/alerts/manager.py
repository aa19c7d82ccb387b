"""AlertManager: each episode is told once a channel, at most so often, and a channel that fails stops nothing.

A message is claimed on disk before it is sent and marked sent after. A process killed between the two, or an answer
that never arrives, leaves the claim; when it has lapsed the message is sent again. So a message arrives once, and
twice only after such an accident.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from signals_core.alerts.alert import SEVERITIES, Alert, Message
from signals_core.alerts.channels import Channel, open_channels, secrets_of
from signals_core.alerts.records import Delivery, Record, RecordFile, State
from signals_core.errors import ChannelError, SettingsError
from signals_core.events import EventStream
from signals_core.settings_alerts import AlertSettings

_MANY = 5
"""More than that at once are one message: five hundred symbols without bars are one fact."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a test message."""

    channel: str
    problem: str | None


@dataclass(frozen=True)
class _Claim:
    """Deliveries that one message settles."""

    message: Message
    episodes: tuple[tuple[str, float], ...]
    """Of the records it tells of: their episodes, and when they were opened."""


class AlertManager:
    """Tells people what happened.

    Args:
        settings: of the alerts.
        folder: where what was told is kept.
        events: each beginning and end is an event there too.
        channels: default: those of the settings.
        clock: seconds since 1970, never a pretended moment: rates and waits are those of the real world.
    """

    def __init__(
        self, settings: AlertSettings, folder: Path, events: EventStream | None = None,
        channels: Mapping[str, Channel] | None = None, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._settings, self._events, self._clock = settings, events, clock
        self._channels: Mapping[str, Channel] = open_channels(settings, folder) if channels is None else channels
        self._file = RecordFile(folder / "alerts.json", clock)
        # A claim outlives any attempt to send.
        self._lapse_seconds = 2 * settings.give_up_seconds + 60

    def notify(self, alert: Alert, lasting: bool = True) -> bool:
        """Tell of an episode unless it was told; True if it is a new one.

        Args:
            lasting: it goes on until `end`; if not, it is told once for ever by its name.
        """
        new = self._open(alert, lasting)
        self.deliver()
        return new

    def end(self, episode: str, note: str = "") -> bool:
        """Tell that an episode is over, where its beginning was told; False if there is none."""
        ended = self._close(episode, note)
        self.deliver()
        return ended

    def settle(self, source: str, current: Sequence[Alert], note: str = "") -> None:
        """Begin the episodes that are `current`, and end all others whose names begin with `source`."""
        names = {alert.episode for alert in current}
        with self._file.changing() as state:
            for record in state.records:
                if record.open and record.alert.episode.startswith(source) and record.alert.episode not in names:
                    self._close_in(record, note)
            for alert in current:
                self._open_in(state, alert, lasting=True, channels=list(self._channels))
        self.deliver()

    def deliver(self) -> None:
        """Send all that waits and may go; call it now and then, so that what was held back goes too."""
        # That a channel fails, or works again, is told on the others, which may have had their turn.
        while True:
            news = [self._deliver_to(name) for name in self._channels]
            if not any(news):
                return

    def test(self, channel: str | None = None) -> list[Outcome]:
        """Send a test message to one channel or all, whatever their rate and health.

        Raises:
            SettingsError: `alerts.channels` does not name it.
        """
        if channel is not None and channel not in self._channels:
            raise SettingsError(f"{channel} is not in alerts.channels ({', '.join(self._channels)}): add it there")
        alert = Alert(
            "test", "warning", "this is a test", "signals", self._moment(self._clock()),
            "somebody ran `signals alerts test`", "nothing: messages arrive here",
        )  # fmt: skip
        chosen = self._channels if channel is None else {channel: self._channels[channel]}
        return [
            Outcome(name, self._send(each, Message(alert, link=self._link(alert)))[0]) for name, each in chosen.items()
        ]

    def records(self) -> list[Record]:
        """Every episode kept, oldest first."""
        return self._file.read().records

    def problems(self) -> dict[str, str]:
        """Channels whose last message was not accepted, and why."""
        return {name: h.problem for name, h in self._file.read().channels.items() if h.problem is not None}

    def _open(self, alert: Alert, lasting: bool, channels: Sequence[str] | None = None) -> bool:
        with self._file.changing() as state:
            return self._open_in(state, alert, lasting, list(self._channels) if channels is None else channels)

    def _open_in(self, state: State, alert: Alert, lasting: bool, channels: Sequence[str]) -> bool:
        alert = self._without_secrets(alert)
        if (state.open_record(alert.episode) if lasting else state.latest(alert.episode)) is not None:
            return False
        told = SEVERITIES.index(alert.severity) >= SEVERITIES.index(self._settings.min_severity)
        now = self._clock()
        beginning = {name: Delivery(at=now) for name in channels} if told else {}
        record = Record(alert, now, None if lasting else now, lasting, beginning=beginning)
        state.records.append(record)
        # Before the record is written: a crash tells other programs twice rather than never.
        self._publish("alert", record)
        return True

    def _close(self, episode: str, note: str) -> bool:
        with self._file.changing() as state:
            record = state.open_record(episode)
            if record is not None:
                self._close_in(record, note)
        return record is not None

    def _close_in(self, record: Record, note: str) -> None:
        record.over_at, record.note = self._clock(), self._hidden(note)
        # Who has not had the beginning yet gets both in one message.
        record.end = {n: Delivery(at=record.over_at) for n, d in record.beginning.items() if d.state != "waiting"}
        self._publish("alert_over", record)

    def _deliver_to(self, name: str) -> bool:
        """Send what waits for a channel; True if there is something new to tell on the others."""
        news = False
        while (claim := self._claim(name)) is not None:
            problem, retry_after = self._send(self._channels[name], claim.message)
            now = self._clock()
            with self._file.changing() as state:
                health = state.health(name)
                if problem is None:
                    health.succeeded(now)
                else:
                    health.failed(now, problem, retry_after)
                for delivery in _deliveries(state, claim, name):
                    delivery.state, delivery.at, delivery.problem = "waiting" if problem else "sent", now, problem
                    delivery.attempts += 1
            if problem is not None:
                return self._tell_of_failure(name, problem) or news
            news = self._close(_failure_episode(name), "messages arrive again") or news
        return news

    def _tell_of_failure(self, name: str, problem: str) -> bool:
        alert = Alert(
            _failure_episode(name), "error", "alerts do not arrive", f"channel {name}",
            self._moment(self._clock()), problem,
            "put it right and run `signals alerts test`; what waits is sent when the channel works again",
        )  # fmt: skip
        state = self._file.read()
        others = [other for other in self._channels if other != name and not state.health(other).failures]
        new = self._open(alert, lasting=True, channels=others)
        if new:
            # Said here as well: there may be no other channel.
            _log.error("alerts do not arrive: %s", problem)
        return new and bool(others)

    def _claim(self, name: str) -> _Claim | None:
        """Mark what the next message to a channel tells as being sent; None if nothing may go."""
        now = self._clock()
        with self._file.changing() as state:
            health = state.health(name)
            if health.resting(now):
                return None
            waiting = [r for r in state.records if self._is_due(r, name, now)]
            room = health.room(now, self._settings.max_per_hour)
            if not waiting or room <= 0:
                return None
            chosen = waiting if room == 1 or len(waiting) > _MANY else waiting[:1]
            for record in chosen:
                for delivery in _of(record, name):
                    delivery.state, delivery.at = "sending", now
            message = self._message(chosen[0]) if len(chosen) == 1 else self._summary(chosen)
            return _Claim(message, tuple((r.alert.episode, r.opened_at) for r in chosen))

    def _is_due(self, record: Record, name: str, now: float) -> bool:
        return any(
            d.state == "waiting" or (d.state == "sending" and abs(now - d.at) > self._lapse_seconds)
            for d in _of(record, name)
        )

    def _message(self, record: Record) -> Message:
        over = record.over_at is not None and record.lasting
        over_at = self._moment(record.over_at) if over and record.over_at is not None else None
        return Message(record.alert, over_at, record.note, self._link(record.alert))

    def _summary(self, records: Sequence[Record]) -> Message:
        severity = max((r.alert.severity for r in records), key=SEVERITIES.index)
        worst_first = sorted(records, key=lambda r: -SEVERITIES.index(r.alert.severity))
        lines = [_line(self._message(record)) for record in worst_first]
        alert = Alert(
            "summary", severity, f"{len(records)} alerts in one message", "signals",
            self._moment(min(r.opened_at for r in records)),
            f"together, being many or above alerts.max_per_hour ({self._settings.max_per_hour}):\n" + "\n".join(lines),
            "`signals alerts list` shows each in full",
        )  # fmt: skip
        return Message(alert, link=self._link(alert))

    def _send(self, channel: Channel, message: Message) -> tuple[str | None, float | None]:
        """The problem and the wait that was asked for; (None, None) if the message was accepted."""
        try:
            channel.send(message)
        except ChannelError as error:
            return self._hidden(str(error)), error.retry_after
        return None, None

    def _publish(self, kind: str, record: Record) -> None:
        if self._events is not None:
            fields = {name: value for name, value in vars(record.alert).items() if name != "page"}
            self._events.publish(kind, {**fields, "note": record.note})

    def _link(self, alert: Alert) -> str | None:
        return f"{self._settings.dagster_url}{alert.page}" if self._settings.dagster_url else None

    def _moment(self, seconds: float) -> str:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"

    def _without_secrets(self, alert: Alert) -> Alert:
        """An error that somebody quotes may hold one."""
        h = self._hidden
        return replace(
            alert, episode=h(alert.episode), title=h(alert.title), scope=h(alert.scope), since=h(alert.since),
            reason=h(alert.reason), advice=h(alert.advice), page=h(alert.page),
        )  # fmt: skip

    def _hidden(self, text: str) -> str:
        for secret in secrets_of(self._settings):
            text = text.replace(secret, "***")
        return text


def _failure_episode(name: str) -> str:
    return f"channel/{name}"


def _of(record: Record, name: str) -> list[Delivery]:
    return [d for d in (record.beginning.get(name), record.end.get(name)) if d is not None and d.state != "sent"]


def _deliveries(state: State, claim: _Claim, name: str) -> list[Delivery]:
    return [d for r in state.records if (r.alert.episode, r.opened_at) in claim.episodes for d in _of(r, name)]


def _line(message: Message) -> str:
    word = "OVER" if message.over_at is not None else message.alert.severity.upper()
    return f"{word} · {message.alert.scope}: {message.alert.title} (since {message.alert.since})"
