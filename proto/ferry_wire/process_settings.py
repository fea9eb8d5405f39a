"""Settings of a process, from its options, its environment, a TOML file and defaults, in that order.

A subclass names its settings as annotated fields: the field ``echo_listen`` is the option
``--echo-listen``, the environment variable ``FERRY_AGENT_ECHO_LISTEN`` (by the subclass's ``env_prefix``)
and the file's ``echo-listen``. The types here check and describe what they hold; a bad value is one line
that says which setting it is, and exit code 2.
"""

import argparse
import sys
import tomllib
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ferry_types.errors import EXIT_CODES, FerryError, Refusal, failed, malformed
from ferry_types.units import format_size, parse_duration, parse_size
from ferry_wire.addresses import Address, parse_address

LISTEN_DEFAULT: Final = "127.0.0.1:0"
"""Loopback, unless told otherwise."""


class LogLevel(StrEnum):
    """How much a process logs."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Shown:
    """How ``--help`` writes a setting's value."""

    metavar: str


def checked_address(text: str, *, any_port: bool = False) -> Address:
    """``parse_address`` for validators: raises ValueError."""
    try:
        return parse_address(text, any_port=any_port)
    except FerryError as error:
        raise ValueError(f"{error.refusal.message}; {error.refusal.hint}") from None


def _listen_address(text: str) -> str:
    return str(checked_address(text, any_port=True))


def _peer_address(text: str) -> str:
    return str(checked_address(text))


def _unless_empty(check: Callable[[str], str]) -> AfterValidator:
    return AfterValidator(lambda text: check(text) if text else "")


def _size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


ListenAddress = Annotated[str, AfterValidator(_listen_address), Shown("HOST:PORT")]
"""Where to listen; port 0 takes a free one."""

OptionalListenAddress = Annotated[str, _unless_empty(_listen_address), Shown("HOST:PORT")]
PeerAddress = Annotated[str, AfterValidator(_peer_address), Shown("HOST:PORT")]
OptionalPeerAddress = Annotated[str, _unless_empty(_peer_address), Shown("HOST:PORT")]
Size = Annotated[int, BeforeValidator(_size), Shown("SIZE")]
"""Bytes, written with a unit (``8GiB``) or without."""

Duration = Annotated[float, BeforeValidator(_duration), Field(gt=0), Shown("DURATION")]
"""Seconds, written with a unit (``250ms``, ``10s``)."""

FilePath = Annotated[Path, AfterValidator(Path.expanduser), Shown("FILE")]
REPEATED: Final = ";"
"""Between the values of a setting that may be given several times, in an environment variable."""


def repeated(parse: Callable[[object], object]) -> Callable[[object], object]:
    """A validator for a tuple of values: an option given several times, or a list in the file."""

    def read(given: object) -> object:
        if isinstance(given, str):
            given = given.split(REPEATED)
        elif isinstance(given, Mapping):
            given = [given]
        if not isinstance(given, Sequence):
            raise ValueError(f"{given!r} is no list of values")
        return tuple(parse(each) for each in given)

    return read


DirectoryPath = Annotated[Path, AfterValidator(Path.expanduser), Shown("DIR")]


class ProcessSettings(BaseSettings):
    """What every process of the product can be told."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_ignore_empty=True)

    config: FilePath | None = Field(default=None, description="a TOML file with settings, named as here")
    listen: ListenAddress = Field(
        default=LISTEN_DEFAULT, description="where its gRPC services listen; port 0 takes a free one"
    )
    address_file: FilePath | None = Field(
        default=None, description="file to write its gRPC address into once it listens"
    )
    log_level: LogLevel = Field(default=LogLevel.INFO, description="how much it logs, on standard error")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not a source here
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not a source here
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options win over the environment, the environment over the file."""
        return init_settings, env_settings, _ConfigFile(settings_cls)

    @classmethod
    def read(cls, options: Mapping[str, str | bool | list[str]]) -> Self:
        """The settings with these given as options. Raises FerryError for a bad value or file."""
        try:
            return cls(**options)  # type: ignore[arg-type] # validators take what options hold
        except ValidationError as error:
            raise FerryError(malformed(_in_words(error), "--help describes all options")) from None

    @classmethod
    def from_command_line(cls, program: str, arguments: Sequence[str] | None = None) -> Self:
        """The settings of this process; ``arguments`` are those of the command line unless given.

        Exits with code 0 after ``--help``, 2 after a bad option or value, 1 if the file cannot be read.
        """
        options = vars(_parser(cls, program).parse_args(arguments))
        try:
            return cls.read({name: value for name, value in options.items() if value is not None})
        except FerryError as error:
            refuse_to_start(program, error.refusal)


class ObservedSettings(ProcessSettings):
    """What a process can be told besides that shows the world what it does."""

    broker: OptionalPeerAddress = Field(
        default="", description="MQTT broker to publish on; without one, nothing is published"
    )
    metrics_listen: OptionalListenAddress = Field(
        default="", description="where Prometheus metrics are served over HTTP; without it, they are not"
    )


def refuse_to_start(program: str, refusal: Refusal) -> NoReturn:
    """Say why a process does not run, and exit with the code of the failure."""
    sys.stderr.write(f"{program}: {refusal.message}\n")
    if refusal.hint:
        sys.stderr.write(f"{refusal.hint}\n")
    sys.exit(EXIT_CODES[refusal.code])


class _ConfigFile(PydanticBaseSettingsSource):
    """The file that ``--config`` or the environment names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not asked: the file is read as a whole."""
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        name = self.current_state.get("config")
        if name is None:
            return {}
        path = Path(name).expanduser()
        try:
            entries = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            reason = f"the configuration file {path} cannot be read: {error.strerror}"
            raise FerryError(failed(reason, "check its path and permissions")) from error
        except ValueError as error:  # no UTF-8, or no TOML
            reason = f"the configuration file {path} is not valid TOML: {error}"
            raise FerryError(malformed(reason, "correct it, or leave --config out")) from error
        return {key.replace("-", "_"): value for key, value in entries.items()}


# --- options ------------------------------------------------------------------------------------

_TYPE_SHOWN: Final[Mapping[Any, str]] = {str: "NAME", int: "NUMBER"}


class _Parser(argparse.ArgumentParser):
    """Words a bad command line as every other refusal."""

    def error(self, message: str) -> NoReturn:
        refuse_to_start(self.prog, malformed(message, "--help describes all options"))


def _parser(settings: type[ProcessSettings], program: str) -> argparse.ArgumentParser:
    prefix = settings.model_config["env_prefix"]
    parser = _Parser(
        prog=program,
        description=settings.__doc__,
        epilog=f"Each option may also come from the environment (--log-level as {prefix}LOG_LEVEL) or, as "
        'log-level = "debug", from the file of --config; options win over both.',
        allow_abbrev=False,
    )
    shared = ObservedSettings.model_fields
    for name, field in sorted(settings.model_fields.items(), key=lambda item: item[0] in shared):
        option = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            parser.add_argument(option, dest=name, action="store_true", default=None, help=field.description)
        else:
            action = "append" if typing.get_origin(field.annotation) is tuple else "store"
            # argparse takes per cent signs for its own.
            described = f"{field.description}{_shown_default(field)}".replace("%", "%%")
            parser.add_argument(option, dest=name, metavar=_metavar(field), help=described, action=action)
    return parser


def _metavar(field: FieldInfo) -> str:
    if isinstance(field.annotation, type) and issubclass(field.annotation, StrEnum):
        return "|".join(field.annotation)
    markers = [*field.metadata]
    for alternative in getattr(field.annotation, "__args__", ()):  # FilePath | None
        markers += getattr(alternative, "__metadata__", ())
    for marker in markers:
        if isinstance(marker, Shown):
            return marker.metavar
    return _TYPE_SHOWN[field.annotation]


def _shown_default(field: FieldInfo) -> str:
    if field.is_required():
        return " (required)"
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is None or default in ("", ()):
        return ""
    is_size = any(isinstance(marker, Shown) and marker.metavar == "SIZE" for marker in field.metadata)
    return f" (default: {format_size(default).replace(' ', '') if is_size else default})"


def _in_words(error: ValidationError) -> str:
    """One line for each bad setting."""
    lines = []
    for fault in error.errors(include_url=False):
        option = "--" + "-".join(str(part) for part in fault["loc"][:1]).replace("_", "-")
        match fault["type"]:
            case "missing":
                lines.append(f"{option} is required")
            case "extra_forbidden":
                lines.append(f"there is no setting {option[2:]}")
            case "value_error":
                reason = str(fault["ctx"]["error"])
                lines.append(f"{option}: {reason}" if fault["loc"] else reason)
            case _:
                lines.append(f"{option}: {fault['input']!r} is not valid: {fault['msg'].lower()}")
    return "\n".join(lines)
