"""The whole loop with every process, on tiny random-weight models: ask, answer, learn, certify, swap, roll back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.whole import Whole, make_rows, start_whole, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    system = start_whole(tmp_path_factory.mktemp("whole"))
    yield system
    system.shammah("down", check=False)


@pytest.fixture(scope="module")
def trained(whole: Whole) -> dict[str, object]:
    """Learn, train and wait until the new release serves; the result of the round."""
    whole.shammah("learn", str(whole.exam), "--exam")
    whole.shammah("learn", str(whole.teach))
    first = whole.champion()
    result = json.loads(whole.shammah("train", timeout=300).stdout)
    assert result["verdict"] == "promoted", result
    wait_until(lambda: whole.champion() == result["release"], what="the swap")
    return {**result, "first": first}


def query(number: int, category: str = "colour") -> str:
    return str(make_rows(category, 1, offset=2000 + number)[0]["query"])


def test_before_it_has_learned_everything_is_the_teachers(whole: Whole) -> None:
    answer = whole.json("ask", query(0), "--no-learn", "--json")
    assert (answer["route"], answer["text"]) == ("ROUTE_TEACHER", "blue")


def test_a_round_trains_all_three_roles_and_certifies(trained: dict[str, object]) -> None:
    losses = trained["losses"]
    assert isinstance(losses, list)
    assert {row["role"] for row in losses} == {"router", "generator", "validator"}
    assert all(row["after"] < row["before"] for row in losses if row["role"] != "validator")
    exam = trained["exam"]
    assert isinstance(exam, list)
    assert {row["category"] for row in exam if row["certified"]} == {"colour", "animal"}


def test_after_the_swap_it_answers_locally_by_the_new_release(whole: Whole, trained: dict[str, object]) -> None:
    answer = whole.json("ask", query(1, "animal"), "--no-learn", "--json")
    assert (answer["route"], answer["text"]) == ("ROUTE_LOCAL", "cat")
    versions = answer["versions"]
    assert isinstance(versions, dict)
    assert versions["release"] == trained["release"]


def test_a_query_in_another_script_is_still_forwarded(whole: Whole, trained: dict[str, object]) -> None:
    done = whole.shammah("ask", "привет мир, как дела сегодня?", "--json", check=False)
    assert done.returncode == 1
    assert "teacher_unavailable" in done.stderr


def test_an_evaluation_twice_gives_the_same_bytes_but_for_times(whole: Whole, trained: dict[str, object]) -> None:
    first, second = (whole.json("eval", str(whole.test), "--json") for _ in range(2))
    assert first.pop("times") and second.pop("times")
    assert json.dumps(first) == json.dumps(second)
    overall = first["overall"]
    assert isinstance(overall, dict)
    assert overall["n"] == 60 and overall["failed"] == 0
    assert overall["local"] > 0


def test_a_malformed_line_is_named_and_the_rest_goes_on(whole: Whole, tmp_path: Path) -> None:
    rows = make_rows("colour", 3, offset=5000)
    lines = [json.dumps(rows[0]), "{broken", json.dumps(rows[1]), json.dumps({**rows[2], "query": ""})]
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    done = whole.shammah("learn", str(path))
    assert "queued 2 of 2" in done.stdout
    assert f"{path}:2" in done.stderr.replace("\n", "") and f"{path}:4" in done.stderr.replace("\n", "")


def test_a_rollback_serves_the_old_release_and_a_promotion_the_new(whole: Whole, trained: dict[str, object]) -> None:
    first, second = str(trained["first"]), str(trained["release"])
    whole.shammah("rollback")
    assert whole.champion() == first
    assert whole.json("ask", query(2), "--no-learn", "--json")["route"] == "ROUTE_TEACHER"
    whole.shammah("promote", second)
    assert whole.champion() == second
    assert whole.json("ask", query(2), "--no-learn", "--json")["route"] == "ROUTE_LOCAL"


def test_the_five_tools_answer(whole: Whole, trained: dict[str, object]) -> None:
    asked = whole.json("tool", "query_local_model", "--json", json.dumps({"query": query(3)}))
    assert asked["response"] == "blue" and asked["would_serve"] is True
    compared = whole.json("tool", "compare_responses", "--json", json.dumps({"query": query(3)}))
    assert compared["verdict"] == "agree" and compared["teacher_response"] == "blue"
    found = whole.json("tool", "analyze_model", "--json", '{"test_count": 50}')
    assert found["tested"] and found["weak_areas"] is not None
    offered = [{"query": f"colour of my new {word}", "response": "blue"} for word in ("bag", "sofa")]
    made = whole.json(
        "tool", "generate_training_data", "--json", json.dumps({"category": "colour", "examples": offered})
    )
    assert made["queued"] == 2
    again = whole.json(
        "tool", "generate_training_data", "--json", json.dumps({"category": "colour", "examples": offered})
    )
    assert again["queued"] == 0 and again["rejected"]


def test_out_of_range_input_is_refused_by_name(whole: Whole) -> None:
    for arguments in (
        ("tool", "analyze_model", "--json", '{"test_count": 49}'),
        ("tool", "generate_training_data", "--json", '{"category": "colour", "count": 101, "difficulty": "easy"}'),
        ("ask", "   "),
        ("ask", "x" * 40_000),
        ("rollback", "01ARZ3NDEKTSV4RRFFQ69G5FAV"),
    ):
        done = whole.shammah(*arguments, check=False)
        assert done.returncode == 1, arguments
        assert done.stderr.split(":")[0] in {"invalid_input", "too_long", "unknown_release", "not_found"}, done.stderr


def test_down_leaves_no_process(tmp_path: Path) -> None:
    system = start_whole(tmp_path)
    pids = [system.pid(part) for part in ("nats", "router", "generator", "validator", "trainer", "gateway")]
    assert all(psutil.pid_exists(pid) for pid in pids)
    system.shammah("down")
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
