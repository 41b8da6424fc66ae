import json
import re
import stat
from pathlib import Path

import pytest
from shammah.v1 import gateway_pb2, generator_pb2, models_pb2, router_pb2, trainer_pb2, validator_pb2
from shammah_chassis.errors import ForbiddenError, InvalidInputError, UnauthenticatedError
from shammah_chassis.scopes import METHOD_SCOPES, SCOPES, Caller, current_caller, require_scope
from shammah_chassis.token_book import DEFAULT_GRANTS, write_tokens
from shammah_chassis.tokens import TokenTable

PROTOS = Path(__file__).parents[3] / "protos" / "shammah" / "v1"
MODULES = (gateway_pb2, generator_pb2, models_pb2, router_pb2, trainer_pb2, validator_pb2)


def list_methods() -> set[str]:
    return {
        f"/{service.full_name}/{method.name}"
        for module in MODULES
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def test_every_rpc_of_the_protos_has_a_scope_and_no_other_method_has() -> None:
    assert len(MODULES) == sum("service " in path.read_text() for path in PROTOS.glob("*.proto"))
    assert set(METHOD_SCOPES) == list_methods()
    assert set(METHOD_SCOPES.values()) <= set(SCOPES)


def test_the_scopes_of_the_gateway_are_those_that_its_proto_states() -> None:
    text = (PROTOS / "gateway.proto").read_text()
    pairs = {method: scope for scope, method in re.findall(r"Scope: (\w+)\.\n\s+rpc (\w+)", text)}
    assert pairs
    assert {f"/shammah.v1.GatewayService/{method}": scope for method, scope in pairs.items()} == {
        method: scope for method, scope in METHOD_SCOPES.items() if "GatewayService" in method
    }


def test_written_tokens_are_known_and_the_table_is_private_and_holds_no_clear_token(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    tokens = write_tokens(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any(token in path.read_text() for token in tokens.values())
    table = TokenTable.load(path)
    for name, scopes in DEFAULT_GRANTS.items():
        assert table.authenticate(f"Bearer {tokens[name]}") == Caller(name, frozenset(scopes))


def test_the_internal_token_may_serve_and_nothing_else(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens.json")
    table = TokenTable.load(tmp_path / "tokens.json")
    header = f"Bearer {tokens['internal']}"
    for method, scope in METHOD_SCOPES.items():
        if scope == "serve":
            assert table.authorise(method, header).name == "internal"
        else:
            with pytest.raises(ForbiddenError, match=scope):
                table.authorise(method, header)


def test_a_method_in_no_table_is_refused_even_to_the_owner(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens.json")
    with pytest.raises(ForbiddenError, match="no table"):
        TokenTable.load(tmp_path / "tokens.json").authorise("/shammah.v1.NewService/New", f"Bearer {tokens['owner']}")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer nobody", "Bearer \udcff"])
def test_a_call_without_a_known_token_is_unauthenticated(tmp_path: Path, header: str | None) -> None:
    write_tokens(tmp_path / "tokens.json")
    with pytest.raises(UnauthenticatedError):
        TokenTable.load(tmp_path / "tokens.json").authenticate(header)


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "{}",
        '{"tokens": []}',
        '{"tokens": [{"name": "a", "sha256": "xyz", "scopes": []}]}',
        json.dumps({"tokens": [{"name": "a", "sha256": "0" * 64, "scopes": ["everything"]}]}),
        json.dumps({"tokens": [{"name": "a", "sha256": "0" * 64, "scopes": "ask"}]}),
    ],
)
def test_a_table_that_is_not_sound_is_refused_as_a_whole(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokens.json").write_text(content)
    with pytest.raises(InvalidInputError):
        TokenTable.load(tmp_path / "tokens.json")


def test_no_table_at_all_is_refused(tmp_path: Path) -> None:
    for path in (None, tmp_path / "none.json"):
        with pytest.raises(InvalidInputError):
            TokenTable.load(path)


def test_an_unknown_scope_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="allowed"):
        write_tokens(tmp_path / "tokens.json", {"a": ["root"]})
    assert list(tmp_path.iterdir()) == []


def test_outside_a_call_there_is_no_caller() -> None:
    with pytest.raises(UnauthenticatedError):
        current_caller()


def test_a_missing_scope_is_named() -> None:
    with pytest.raises(ForbiddenError, match="'train'"):
        require_scope(Caller("guest", frozenset({"ask"})), "train")
