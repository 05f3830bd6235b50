"""Settings are refused with a sentence that says what to write instead."""

import pytest

from service.settings import BadSettings, Settings, list_names, load_settings


def test_defaults_listen_on_loopback() -> None:
    settings = load_settings({}, {})
    assert (settings.host, settings.http_port, settings.grpc_port) == ("127.0.0.1", 8080, 8081)


def test_command_line_wins_over_environment() -> None:
    settings = load_settings({"http_port": "9001"}, {"SERVE_HTTP_PORT": "9000", "SERVE_GRPC_PORT": "9002"})
    assert (settings.http_port, settings.grpc_port) == (9001, 9002)


def test_other_variables_of_the_environment_are_left_alone() -> None:
    assert load_settings({}, {"PATH": "/bin", "SERVER": "x"}) == load_settings({}, {})


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        pytest.param({"SERVE_HTTP_PROT": "1"}, "did you mean SERVE_HTTP_PORT?", id="a misspelt name"),
        pytest.param({"SERVE_QZX": "1"}, "docs/operations.md lists them all", id="a name like no other"),
        pytest.param({"SERVE_HTTP_PORT": "x"}, "SERVE_HTTP_PORT='x' is not valid", id="no number"),
        pytest.param({"SERVE_HTTP_PORT": "70000"}, "less than or equal to 65535", id="a port too high"),
        pytest.param({"SERVE_MAX_PIXELS": "0"}, "greater than 0", id="a limit of nothing"),
        pytest.param({"SERVE_PRECISION": "fp8"}, "'fp32' or 'int8'", id="an unknown choice"),
    ],
)
def test_bad_setting_names_itself_and_the_remedy(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(BadSettings) as caught:
        load_settings({}, environment)
    assert sentence in str(caught.value)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(BadSettings) as caught:
        load_settings({}, {"SERVE_HTTP_PORT": "x", "SERVE_GRPC_PORT": "y"})
    assert len(str(caught.value).splitlines()) == 2


def test_secrets_are_never_shown() -> None:
    settings = load_settings({"admin_token": "hunter2"}, {})
    assert "hunter2" not in str(settings.with_secrets_hidden())


def test_children_receive_equal_settings() -> None:
    settings = load_settings({"http_port": "0", "jobs_dir": "somewhere/else"}, {})
    assert Settings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize("name", list_names())
def test_every_setting_says_what_it_means(name: str) -> None:
    assert len(Settings.__dataclass_fields__[name].metadata["meaning"]) > 10
