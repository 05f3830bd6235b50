"""The file of API keys: what is written is read, what is broken is named, no key is ever in it."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.__main__ import main
from service.access.gate import ANY, ANYONE, Gate, read_credential
from service.access.keyring import Keyring
from service.access.keys import (
    SCOPES,
    ApiKey,
    BadKeyFile,
    Scope,
    find_id,
    hash_key,
    make_key,
    read_keys,
    write_keys,
)
from service.errors import Forbidden, Unauthenticated


def write_one(path: Path, *scopes: Scope, expires: datetime | None = None) -> tuple[ApiKey, str]:
    """A file with one new key."""
    made, key = make_key(frozenset(scopes))
    made = replace(made, expires=expires)
    write_keys(path, {made.id: made})
    return made, key


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    made, _ = make_key(frozenset({"classify", "batch"}))
    made = replace(
        made, rate_per_s=12.5, burst=40, weight=3.0, expires=datetime(2030, 1, 1, tzinfo=UTC), note="lab"
    )
    write_keys(path, {made.id: made})
    assert read_keys(path) == {made.id: made}


def test_the_file_holds_no_key_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    made, key = write_one(path, "classify")
    text = path.read_text()
    assert made.id in text
    assert hash_key(key) in text
    assert key.rpartition("_")[2] not in text
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["keys.json"]


def test_a_thousand_keys_differ_and_carry_their_ids() -> None:
    made = [make_key(frozenset({"classify"})) for _ in range(1000)]
    assert len({key for _, key in made}) == 1000
    assert all(find_id(key) == one.id for one, key in made)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param("", "is not a file of API keys", id="empty"),
        pytest.param("{", "is not a file of API keys", id="cut off"),
        pytest.param("\udcff", "is not a file of API keys", id="not UTF-8"),
        pytest.param('{"keys": [{}]}', "missing required field", id="no id"),
        pytest.param('{"keys": [], "more": 1}', "unknown field", id="unknown field"),
        pytest.param('{"keys": [ENTRY, ENTRY]}', "has the id of another one", id="an id twice"),
        pytest.param(
            '{"keys": [{"id": "A b", "sha256": "HASH", "scopes": ["batch"]}]}', "an id of", id="bad id"
        ),
        pytest.param(
            '{"keys": [{"id": "a", "sha256": "HA", "scopes": ["batch"]}]}', "sha256 as", id="no hash"
        ),
        pytest.param(
            '{"keys": [{"id": "a", "sha256": "HASH", "scopes": []}]}', "at least one", id="no scope"
        ),
        pytest.param(
            '{"keys": [{"id": "a", "sha256": "HASH", "scopes": ["all"]}]}', "enum", id="other scope"
        ),
        pytest.param(
            '{"keys": [{"id": "a", "sha256": "HASH", "scopes": ["batch"], "rate_per_s": 0}]}',
            "rate",
            id="no rate",
        ),
        pytest.param(
            '{"keys": [{"id": "a", "sha256": "HASH", "scopes": ["batch"], "weight": -1}]}',
            "weight",
            id="weight",
        ),
        pytest.param(
            '{"keys": [{"id":"a","sha256":"HASH","scopes":["batch"],"expires":"2030-01-01T00:00:00"}]}',
            "offset",
            id="expiry without offset",
        ),
    ],
)
def test_a_broken_file_is_refused_with_the_mistake(tmp_path: Path, content: str, sentence: str) -> None:
    entry = '{"id": "a", "sha256": "HASH", "scopes": ["batch"]}'
    path = tmp_path / "keys.json"
    path.write_bytes(
        content.replace("ENTRY", entry).replace("HASH", "0" * 64).encode("utf-8", "surrogateescape")
    )
    with pytest.raises(BadKeyFile, match=sentence):
        read_keys(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadKeyFile, match="cannot be read"):
        read_keys(tmp_path / "keys.json")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    old, _ = write_one(path, "classify")
    keyring = Keyring(path)
    assert not keyring.refresh()
    new, _ = write_one(path, "batch")
    assert keyring.refresh()
    assert set(keyring.keys) == {new.id} != {old.id}


@pytest.mark.parametrize("content", ["{broken", None], ids=["broken", "gone"])
def test_a_broken_file_leaves_the_keys_that_were(
    tmp_path: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.json"
    made, _ = write_one(path, "classify")
    keyring = Keyring(path)
    path.unlink() if content is None else path.write_text(content)
    keyring.refresh()
    assert set(keyring.keys) == {made.id}
    assert not keyring.is_current
    assert [record.message for record in caplog.records] == ["API keys not read, the old ones stay"]
    keyring.refresh()
    assert len(caplog.records) == 1  # said once
    write_one(path, "classify")
    keyring.refresh()
    assert keyring.is_current


@pytest.mark.parametrize("need", [*SCOPES, ANY])
def test_a_scope_opens_its_own_door_and_admin_every_one(tmp_path: Path, need: Scope) -> None:
    for scope in SCOPES:
        made, key = write_one(tmp_path / "keys.json", scope)
        gate = Gate(Keyring(tmp_path / "keys.json"))
        if need in (scope, ANY) or scope == "admin":
            assert gate.require(key, need).id == made.id
        else:
            with pytest.raises(Forbidden, match=need):
                gate.require(key, need)


def test_wrong_keys_are_unknown_and_never_repeated(tmp_path: Path) -> None:
    made, key = write_one(tmp_path / "keys.json", "admin")
    gate = Gate(Keyring(tmp_path / "keys.json"))
    wrong = [
        None,
        "",
        "x",
        key[:-1],
        key + "x",
        key.upper(),
        f"rs_{made.id}_",
        f"rs_{made.id}_x",
        "rs__",
        "rs_a_b",
    ]
    wrong += [key.replace(made.id, "0000000000"), "rs_" + "a" * 10_000, f"rs_{made.id}_\xff", "rs_nobody_"]
    for credential in wrong:
        with pytest.raises(Unauthenticated) as told:
            gate.require(credential, ANY)
        assert not credential or len(credential) < 5 or credential not in told.value.detail


def test_an_expired_key_is_refused_from_its_second_on(tmp_path: Path) -> None:
    expires = datetime(2030, 1, 1, tzinfo=UTC)
    _, key = write_one(tmp_path / "keys.json", "classify", expires=expires)
    now = expires.timestamp() - 0.001
    gate = Gate(Keyring(tmp_path / "keys.json"), clock=lambda: now)
    gate.require(key, "classify")
    now += 0.001
    with pytest.raises(Unauthenticated, match="expired"):
        gate.require(key, "classify")


def test_without_a_file_everybody_is_let_in_but_for_the_admin_port() -> None:
    gate = Gate(None)
    assert gate.is_open
    assert gate.require(None, "admin") is ANYONE
    with pytest.raises(Forbidden, match="SERVE_ADMIN_TOKEN"):
        gate.require_admin(None)


def test_the_admin_port_takes_the_token_or_an_admin_key(tmp_path: Path) -> None:
    _, key = write_one(tmp_path / "keys.json", "admin")
    keyring = Keyring(tmp_path / "keys.json")
    assert Gate(None, "token").require_admin("token").id == "admin-token"
    assert Gate(keyring, "token").require_admin(key).key is not None
    assert Gate(keyring).require_admin(key).key is not None
    for credential in (None, "", "tokem", "token\xff"):
        for gate in (Gate(None, "token"), Gate(keyring, "token"), Gate(keyring)):
            with pytest.raises(Unauthenticated):
                gate.require_admin(credential)
    _, key = write_one(tmp_path / "keys.json", "classify")
    with pytest.raises(Forbidden):
        Gate(Keyring(tmp_path / "keys.json")).require_admin(key)


@pytest.mark.parametrize(
    ("authorization", "api_key", "found"),
    [
        (None, None, None),
        ("Bearer k", None, "k"),
        ("bearer  k ", None, "k"),
        ("Basic eDp5", None, None),
        ("Basic eDp5", "k", "k"),
        ("Bearer ", " k ", "k"),
        ("Bearer one", "other", "one"),
        (None, " ", None),
    ],
)
def test_a_key_is_found_in_either_header(
    authorization: str | None, api_key: str | None, found: str | None
) -> None:
    assert read_credential(authorization, api_key) == found


def run(*arguments: str) -> str:
    """The output of `resnet-serve keys ...`."""
    done = CliRunner().invoke(main, ["keys", *arguments], env={"COLUMNS": "200", "SERVE_API_KEYS": ""})
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_makes_lists_and_revokes(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    file = ["--file", str(path)]
    rules = ["--scope", "batch", "--scope", "classify", "--rate", "5", "--weight", "2", "--days", "1"]
    key = run("add", *file, *rules, "--note", "the lab").strip()
    other = run("add", *file).strip()
    id = find_id(key)
    assert id is not None
    found = read_keys(path)
    assert found[id].scopes == {"batch", "classify"}
    assert (found[id].rate_per_s, found[id].burst, found[id].weight) == (5.0, 5, 2.0)
    listed = run("list", *file)
    assert "the lab" in listed
    assert "5/s, 5 at once" in listed
    assert key.rpartition("_")[2] not in listed
    run("revoke", *file, id)
    assert set(read_keys(path)) == {find_id(other)}
    done = CliRunner().invoke(main, ["keys", "revoke", *file, id])
    assert done.exit_code == 1
    assert "has no key" in done.output
