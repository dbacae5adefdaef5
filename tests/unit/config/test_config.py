from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from invalidator import config, yamlfile
from invalidator.config.variables import candidates
from invalidator.errors import ConfigError
from invalidator.sources import pgoutput
from invalidator.targets import redis_keys
from invalidator.targets.cdn import fastly, varnish

if TYPE_CHECKING:
    from collections.abc import Mapping

EDGE = """\
rules: rules.yaml
source:
  type: pgoutput
  slot: from_file
targets:
  edge-eu:
    type: fastly
    service_id: SU1Z0isxPaozGVKXdv0eY
    api_token: file-token
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "invalidator.yaml"
    path.write_text(EDGE)
    return path


def load(path: Path, environment: Mapping[str, str] | None = None, **overrides: str) -> config.Settings:
    return config.load(
        path, {name.replace("__", "."): v for name, v in overrides.items()}, environment=environment or {}
    )


def source(settings: config.Settings) -> pgoutput.Settings:
    assert isinstance(settings.source, pgoutput.Settings)
    return settings.source


def edge(settings: config.Settings) -> fastly.Settings:
    options = settings.targets["edge-eu"]
    assert isinstance(options, fastly.Settings)
    return options


def refused(path: Path, environment: Mapping[str, str] | None = None, **overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environment, **overrides)
    return str(caught.value)


# -- where values come from ------------------------------------------------------------------------------------------


def test_each_component_is_checked_by_the_model_beside_it(file: Path) -> None:
    settings = load(file)
    assert source(settings).slot == "from_file"
    assert edge(settings).api_token.get_secret_value() == "file-token"


def test_rules_are_relative_to_the_file_but_from_a_variable_to_the_current_directory(file: Path) -> None:
    assert load(file).rules == (file.parent / "rules.yaml",)
    assert load(file, {"INVALIDATOR_RULES": "other.yaml"}).rules == (Path("other.yaml"),)
    assert load(file, {"INVALIDATOR_RULES": '["a.yaml", "/b"]'}).rules == (Path("a.yaml"), Path("/b"))


def test_variables_win_over_the_file_and_options_over_variables(file: Path) -> None:
    environment = {"INVALIDATOR_SOURCE__SLOT": "from_variable"}
    assert source(load(file, environment)).slot == "from_variable"
    assert source(load(file, environment, source__slot="from_option")).slot == "from_option"


def test_a_variable_reaches_into_a_target_whose_name_has_a_hyphen(file: Path) -> None:
    settings = load(file, {"INVALIDATOR_TARGETS__EDGE_EU__API_TOKEN": "12345678"})
    assert edge(settings).api_token.get_secret_value() == "12345678"


def test_a_variable_reaches_into_nested_sections_and_lists(file: Path) -> None:
    settings = load(
        file,
        {
            "INVALIDATOR_TARGETS__EDGE_EU__RETRY__DEADLINE_SECONDS": "5",
            "INVALIDATOR_TARGETS__EDGE_EU__REPEAT_AFTER_SECONDS": "[1, 2.5]",
            "INVALIDATOR_TARGETS__EDGE_EU__REQUIRED": "false",
        },
    )
    assert edge(settings).retry.deadline_seconds == 5
    assert edge(settings).retry.max_delay_seconds == 30
    assert edge(settings).repeat_after_seconds == (1.0, 2.5)
    assert edge(settings).required is False


def test_a_file_variable_holds_the_value_without_its_last_newline(file: Path, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("  slot \n")
    settings = load(file, {"INVALIDATOR_SOURCE__PUBLICATION_FILE": str(secret)})
    assert source(settings).publication == "  slot "


@pytest.mark.parametrize("name", ["dsn", "password"])
def test_a_file_with_credentials_of_a_connection_is_named_and_read_later(file: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / f"source__{name}").write_text("host=from-secret")
    secret = f"file:{tmp_path / f'source__{name}'}"
    for environment in (
        {f"INVALIDATOR_SOURCE__{name.upper()}_FILE": secret.removeprefix("file:")},
        {"INVALIDATOR_SECRETS_DIR": str(tmp_path)},
    ):
        assert getattr(source(load(file, environment)), name).get_secret_value() == secret


def test_a_password_for_lookups_without_a_dsn_for_them_is_refused(file: Path) -> None:
    text = refused(file, {"INVALIDATOR_LOOKUPS__PASSWORD": "s3cret"})
    assert "lookups.password is for lookups.dsn" in text
    assert "s3cret" not in text


@pytest.mark.parametrize("dsn", ["postgres//x", "postgresql://user:p@ss#w/rd@127.0.0.1:1/blog", "nonsense"])
def test_a_dsn_that_cannot_be_read_is_refused_without_showing_any_of_it(file: Path, dsn: str) -> None:
    text = refused(file, {"INVALIDATOR_SOURCE__DSN": dsn})
    assert "INVALIDATOR_SOURCE__DSN: error[bad-value]" in text
    assert "ss#w" not in text
    assert "nonsense" not in text


def test_a_guessed_port_variable_is_an_error_and_that_of_kubernetes_is_not(file: Path) -> None:
    load(file, {"INVALIDATOR_HTTP_PORT": "tcp://10.0.0.1:8642"})
    assert "INVALIDATOR_HTTP_PORT" in refused(file, {"INVALIDATOR_HTTP_PORT": "9999"})


@pytest.mark.parametrize(
    "name", ["invalidator_source__dsn", "INVALIDATOR_SOURCE__DSN", "source__dsn", "source/dsn", "SOURCE/DSN"]
)
@pytest.mark.parametrize("variable", ["INVALIDATOR_SECRETS_DIR", "CREDENTIALS_DIRECTORY"])
def test_a_secrets_directory_is_read_flat_or_nested(file: Path, tmp_path: Path, name: str, variable: str) -> None:
    secret = tmp_path / "secrets" / name
    secret.parent.mkdir(parents=True)
    secret.write_text("postgresql://secret\n")
    (tmp_path / "secrets" / "ca.crt").write_text("somebody else's")
    settings = load(file, {variable: str(tmp_path / "secrets")})
    assert source(settings).dsn.get_secret_value() == f"file:{secret}"


def test_a_secret_volume_of_kubernetes_is_read_through_its_links(file: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    (volume / "..2026").mkdir(parents=True)
    (volume / "..2026" / "source__slot").write_text("linked")
    (volume / "..data").symlink_to("..2026")
    (volume / "source__slot").symlink_to("..data/source__slot")
    assert source(load(file, {"INVALIDATOR_SECRETS_DIR": str(volume)})).slot == "linked"


def test_a_variable_wins_over_a_secrets_directory(file: Path, tmp_path: Path) -> None:
    (tmp_path / "source__slot").write_text("secret")
    environment = {"INVALIDATOR_SECRETS_DIR": str(tmp_path), "INVALIDATOR_SOURCE__SLOT": "variable"}
    assert source(load(file, environment)).slot == "variable"


def test_the_environment_alone_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {
        "INVALIDATOR_TARGETS__CACHE__TYPE": "redis_keys",
        "INVALIDATOR_TARGETS__CACHE__URL": "redis://cache:6379",
        "INVALIDATOR_RULES": "/etc/rules",
    }
    settings = config.load(environment=environment)
    assert settings.file is None
    assert settings.rules == (Path("/etc/rules"),)
    assert isinstance(settings.targets["cache"], redis_keys.Settings)
    assert isinstance(settings.source, pgoutput.Settings)


def test_without_file_and_variables_the_error_says_how_to_name_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="--settings FILE"):
        config.load(environment={})


def test_the_file_may_be_named_by_a_variable(file: Path) -> None:
    assert config.load(environment={"INVALIDATOR_SETTINGS": str(file)}).file == file


def test_origins_tell_the_line_or_the_variable(file: Path) -> None:
    loaded = config.load_with_origins(file, environment={"INVALIDATOR_SOURCE__PUBLICATION": "p"})
    assert loaded.origins["source", "slot"] == f"{file}:4"
    assert loaded.origins["source", "publication"] == "INVALIDATOR_SOURCE__PUBLICATION"
    assert ("source", "create") not in loaded.origins


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("INVALIDATOR_LOGLVEL", "INVALIDATOR_LOG__LEVEL"),
        ("INVALIDATOR_SOURCE__SLTO", "INVALIDATOR_SOURCE__SLOT"),
        ("INVALIDATOR_SOURCE_SLOT", "INVALIDATOR_SOURCE__SLOT"),
        ("INVALIDATOR_TARGETS__EDGE_EU__API_TOKN", "INVALIDATOR_TARGETS__EDGE_EU__API_TOKEN"),
        ("INVALIDATOR_TARGETS__EDGE__API_TOKEN", "INVALIDATOR_TARGETS__EDGE_EU__API_TOKEN"),
        ("INVALIDATOR_TARGETS__EDGE_EU__RETRY__DEADLINE", "INVALIDATOR_TARGETS__EDGE_EU__RETRY__DEADLINE_SECONDS"),
        ("INVALIDATOR_SOURCE__DNS_FILE", "INVALIDATOR_SOURCE__DSN"),
    ],
)
def test_a_misspelled_variable_is_an_error_with_a_suggestion(file: Path, variable: str, meant: str) -> None:
    text = refused(file, {variable: "x"})
    assert f"unknown variable {variable}" in text
    assert f"did you mean {meant}?" in text


def test_all_misspelled_variables_are_reported_at_once(file: Path) -> None:
    text = refused(file, {"INVALIDATOR_A": "1", "INVALIDATOR_B": "2"})
    assert "INVALIDATOR_A" in text
    assert "INVALIDATOR_B" in text


def test_variables_that_kubernetes_makes_of_a_service_are_not_ours() -> None:
    of_services = {
        "INVALIDATOR_SERVICE_HOST": "10.0.0.1",
        "INVALIDATOR_SERVICE_PORT": "8642",
        "INVALIDATOR_SERVICE_PORT_HTTP": "8642",
        "INVALIDATOR_PORT": "tcp://10.0.0.1:8642",
        "INVALIDATOR_PORT_8642_TCP": "tcp://10.0.0.1:8642",
        "INVALIDATOR_PORT_8642_TCP_ADDR": "10.0.0.1",
        "INVALIDATOR_METRICS_SERVICE_HOST": "10.0.0.1",
        "INVALIDATOR_METRICS_PORT_8642_TCP_PROTO": "tcp",
    }
    assert candidates(of_services | {"INVALIDATOR_HTTP__PORT": "1"}) == {"INVALIDATOR_HTTP__PORT": "1"}


def test_a_misspelled_option_is_an_error_with_a_suggestion(file: Path) -> None:
    assert "unknown setting source.slto: did you mean source.slot?" in refused(file, source__slto="x")
    assert "unknown setting zzz.yyy: invalidator config   (lists" in refused(file, zzz__yyy="x")


def test_a_misspelled_secret_is_an_error(file: Path, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "invalidator_source__dns").write_text("x")
    assert "INVALIDATOR_SOURCE__DSN" in refused(file, {"INVALIDATOR_SECRETS_DIR": str(tmp_path / "secrets")})


def test_a_variable_and_its_file_form_exclude_each_other(file: Path) -> None:
    text = refused(file, {"INVALIDATOR_SOURCE__DSN": "a", "INVALIDATOR_SOURCE__DSN_FILE": "b"})
    assert "both INVALIDATOR_SOURCE__DSN and INVALIDATOR_SOURCE__DSN_FILE" in text


def test_an_unreadable_secret_names_variable_and_file(file: Path) -> None:
    text = refused(file, {"INVALIDATOR_SOURCE__DSN_FILE": "/nowhere/dsn"})
    assert "INVALIDATOR_SOURCE__DSN_FILE: /nowhere/dsn cannot be read" in text
    assert "there is no directory /nowhere" in refused(file, {"INVALIDATOR_SECRETS_DIR": "/nowhere"})


def test_a_list_in_a_variable_must_be_json(file: Path) -> None:
    text = refused(file, {"INVALIDATOR_TARGETS__EDGE_EU__REPEAT_AFTER_SECONDS": "1,2"})
    assert "INVALIDATOR_TARGETS__EDGE_EU__REPEAT_AFTER_SECONDS" in text
    assert "JSON" in text


def test_a_bad_value_from_a_variable_is_reported_under_its_name(file: Path) -> None:
    text = refused(file, {"INVALIDATOR_SOURCE__HEARTBEAT_SECONDS": "soon"})
    assert text.startswith("INVALIDATOR_SOURCE__HEARTBEAT_SECONDS: error[bad-value]")


def broken(file: Path, old: str, new: str) -> tuple[yamlfile.Diagnostic, ...]:
    assert old in EDGE
    file.write_text(EDGE.replace(old, new))
    with pytest.raises(yamlfile.Invalid) as caught:
        load(file)
    return caught.value.diagnostics


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("type: fastly", "type: fastyl", (7, 11), "unknown type 'fastyl': did you mean 'fastly'?"),
        ("    type: fastly\n", "", (6, 3), "target 'edge-eu' needs the field 'type'"),
        ("slot: from_file", "slto: from_file", (4, 3), "unknown field 'slto' in source"),
        ("slot: from_file", "slot: From-File", (4, 9), "does not have the form"),
        ("edge-eu:", "Edge:", (6, 3), "'Edge' is no name for a target"),
        ("rules:", "ruls:", (1, 1), "unknown field 'ruls' in the file"),
        ("rules: rules.yaml", "http: {listen: localhost}", (1, 16), "'localhost' is not an address to listen on"),
        ("rules: rules.yaml", "log: {level: loud}", (1, 14), "'loud' is not one of"),
        ("rules: rules.yaml", "shutdown: {grace_seconds: -1}", (1, 27), "must be at least 0"),
        ("    api_token: file-token\n", "", (6, 3), "needs the field 'api_token'"),
    ],
)
def test_what_is_wrong_in_the_file_is_reported_at_its_place(
    file: Path, old: str, new: str, place: tuple[int, int], words: str
) -> None:
    (diagnostic, *_) = broken(file, old, new)
    assert (diagnostic.line, diagnostic.column) == place
    assert words in diagnostic.message


def test_a_missing_field_says_which_variable_may_hold_it(file: Path) -> None:
    (diagnostic,) = broken(file, "    api_token: file-token\n", "")
    assert diagnostic.help is not None
    assert "INVALIDATOR_TARGETS__EDGE_EU__API_TOKEN_FILE" in diagnostic.help


def test_errors_of_all_sections_are_reported_at_once(file: Path) -> None:
    found = broken(file, "slot: from_file", "slto: x\n  create: perhaps\nlog: {level: loud}")
    assert [diagnostic.line for diagnostic in found] == [4, 5, 6]


def test_an_unknown_type_from_a_variable_is_reported_under_its_name(file: Path) -> None:
    text = refused(file, {"INVALIDATOR_TARGETS__CACHE__TYPE": "redis_key"})
    assert text.startswith("INVALIDATOR_TARGETS__CACHE__TYPE: error[unknown-type]")
    assert "did you mean 'redis_keys'?" in text


def test_a_number_from_an_option_is_not_quoted_as_what_stands_in_the_file(file: Path) -> None:
    text = refused(file, rules="[7]")
    assert "put it into quotes: '7'" in text


def test_an_unknown_type_from_an_option_is_reported_under_the_option(file: Path) -> None:
    text = refused(file, source__type="pgoutputt")
    assert text.startswith("--set source.type: error[unknown-type]")


def test_two_targets_whose_variables_would_be_the_same_are_refused(file: Path) -> None:
    file.write_text(EDGE + "  edge_eu:\n    type: blackhole\n")
    assert "would share their variables" in refused(file)


@pytest.mark.parametrize("text", ["targets: {}", "targets:", "targets: []", "- a", "source: {}", "", "targets: {a: b}"])
def test_a_file_without_a_usable_target_is_refused_with_a_place(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(yamlfile.Invalid) as caught:
        load(file)
    assert all(diagnostic.file == str(file) for diagnostic in caught.value.diagnostics)


# -- secrets ---------------------------------------------------------------------------------------------------------


def test_no_secret_is_in_the_representation_of_settings(file: Path) -> None:
    canary = "canary-51b2"
    file.write_text(EDGE.replace("file-token", canary) + "  c:\n    type: varnish\n    url: http://v\n")
    settings = load(
        file, {"INVALIDATOR_SOURCE__DSN": f"postgresql://u:{canary}@h/d", "INVALIDATOR_TARGETS__C__SECRET": canary}
    )
    assert canary not in repr(settings)
    assert canary not in str(settings)
    assert isinstance(settings.targets["c"], varnish.Settings)


def test_no_error_shows_the_secret_that_it_is_about(file: Path) -> None:
    canary = "canary-51b2"
    file.write_text(EDGE.replace("api_token: file-token", f"api_token: [{canary}]"))
    assert canary not in refused(file)
    file.write_text(EDGE.replace("slot: from_file", f"dsn: postgresql://u:{canary}@h/d\n  slto: 1"))
    assert canary not in refused(file, {"INVALIDATOR_TARGETS__EDGE_EU__API_TOKEN": f"{canary}\n\x00"})
    assert canary not in refused(file, {"INVALIDATOR_TARGETS__EDGE_EU__API_TOKN": canary})


# -- the examples ----------------------------------------------------------------------------------------------------

EXAMPLES = Path("config/invalidator.yaml"), Path("config/invalidator.minimal.yaml")


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_the_examples_load(example: Path) -> None:
    assert load(example).targets


def test_the_example_of_an_outbox_names_every_setting_of_it_with_its_default() -> None:
    example = Path("config/invalidator.outbox.yaml")
    source = load(example).source
    assert source == type(source)(type="outbox")
    assert {name for name in type(source).model_fields if f"{name}:" not in example.read_text()} == {"dsn", "password"}


def test_the_full_example_shows_the_defaults() -> None:
    shown = load(EXAMPLES[0])
    assert shown.source == load(EXAMPLES[1]).source
    assert shown.targets["redis"] == load(EXAMPLES[1]).targets["redis"]
    for section in ("delivery", "http", "log", "shutdown"):
        assert getattr(shown, section) == getattr(load(EXAMPLES[1]), section)


def test_the_full_example_names_every_setting_of_what_it_uses() -> None:
    text = EXAMPLES[0].read_text()
    loaded = load(EXAMPLES[0])
    models: list[Any] = [loaded.source, *loaded.targets.values(), loaded.delivery, loaded.http, loaded.log]
    missing = {name for model in models for name in type(model).model_fields if f"{name}:" not in text}
    assert missing == set()
