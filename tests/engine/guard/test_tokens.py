"""Dev paths answer nobody without the token, and the token may rotate under a running engine."""

import os
from typing import TYPE_CHECKING

import pytest

from dormouse_engine.guard.tokens import Tokens
from tests.engine.guard.client import TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.engine.guard.conftest import Rig

DEV = ["POST /sleep", "POST /wake_up", "GET /is_sleeping", "GET /dormouse/report", "GET /dormouse/events"]
DEV += ["PUT /dormouse/settings", "POST /brand_new", "GET /dormouse/nothing", "POST /collective_rpc"]


@pytest.mark.parametrize("target", DEV)
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", f"Basic {TOKEN}", "Bearer", f"{TOKEN}"])
async def test_a_dev_path_without_the_right_token_is_401_and_never_reaches_the_engine(
    rig: "Rig", target: str, authorization: str | None
) -> None:
    method, path = target.split()
    headers = {} if authorization is None else {"authorization": authorization}
    answer = await rig.client.start(method, path, headers=headers).answer()
    assert (answer.status, answer.code) == (401, "bad_token")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json["error"]["param"] is None
    assert TOKEN not in answer.body.decode()
    assert rig.engine.calls == []


async def test_without_a_token_file_the_answer_says_what_to_set(make_rig: "Callable[..., Rig]") -> None:
    answer = await make_rig(token_file=None).client.dev("POST", "/sleep")
    assert answer.status == 401
    assert "DORMOUSE_TOKEN_FILE" in answer.json["error"]["message"]


async def test_a_websocket_on_a_dev_path_is_denied_without_the_token(rig: "Rig") -> None:
    request = rig.client.start("", "/brand_new", type="websocket")
    await request.task
    assert [message["type"] for message in request.messages] == ["websocket.close"]
    assert rig.engine.served == []


async def test_the_token_never_reaches_the_engine_and_its_own_key_does(
    make_rig: "Callable[..., Rig]",
) -> None:
    rig = make_rig(engine_api_key="inner")
    await rig.client.dev("GET", "/server_info", headers={"X-Dormouse-Operation": "x", "X-Other": "y"})
    await rig.client.sleep(Operation="op")
    for path in ("/server_info", "/sleep"):
        seen = rig.engine.headers[path]
        assert seen[b"authorization"] == b"Bearer inner"
        assert b"x-dormouse-operation" not in seen
    assert rig.engine.headers["/server_info"][b"x-other"] == b"y"


def test_both_tokens_are_valid_while_one_rotates_and_the_old_one_ends_with_its_line(tmp_path: "Path") -> None:
    path = tmp_path / "token"
    path.write_text("old\n")
    tokens = Tokens(path)
    assert tokens.refusal("Bearer old") is None
    path.write_text("old\n\n  new  \n")
    assert tokens.refusal("Bearer old") is None
    assert tokens.refusal("bearer new") is None
    fresh = tmp_path / "next"
    fresh.write_text("new\n")
    fresh.replace(path)
    assert tokens.refusal("Bearer new") is None
    assert tokens.refusal("Bearer old") == "the token is wrong"


def test_a_swap_of_the_same_size_and_time_is_noticed_by_its_inode(tmp_path: "Path") -> None:
    one, two, link = tmp_path / "one", tmp_path / "two", tmp_path / "token"
    one.write_text("aaa")
    two.write_text("bbb")
    for path in (one, two):
        os.utime(path, (1000, 1000))
    link.symlink_to(one)
    tokens = Tokens(link)
    assert tokens.refusal("Bearer aaa") is None
    link.unlink()
    link.symlink_to(two)
    assert tokens.refusal("Bearer aaa") is not None
    assert tokens.refusal("Bearer bbb") is None


@pytest.mark.parametrize("content", [None, "", "\n\n"])
def test_a_file_that_is_gone_or_empty_lets_nobody_in(tmp_path: "Path", content: str | None) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    tokens = Tokens(path)
    assert tokens.refusal("Bearer old") is None
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    for given in ("Bearer old", "Bearer ", "Bearer"):
        refusal = tokens.refusal(given)
        assert refusal is not None
        assert "DORMOUSE_TOKEN_FILE" in refusal


def test_a_token_of_any_letters_is_compared_by_its_bytes(tmp_path: "Path") -> None:
    path = tmp_path / "tokens"
    path.write_text("g\u00e9heim\n", encoding="utf-8")
    sent = b"Bearer " + "g\u00e9heim".encode()
    assert Tokens(path).refusal(sent.decode("latin-1")) is None
    assert Tokens(path).refusal("Bearer g\u00e9heim") == "the token is wrong"
