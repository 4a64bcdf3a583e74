import httpx
import pydantic
import pytest
from page_server import with_page

from benchmarks.page_swarm import PageSwarm
from peer.http import health, history, paths, status, view
from peer.http.paths import PATHS, Paths
from peer.http.status_page import MAX_ROUNDS, Shown

MODELS: dict[str, type[pydantic.BaseModel]] = {
    name: kind
    for module in (status, view, history, paths, health)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)
}


def test_every_path_of_the_table_answers_with_its_model() -> None:
    async def check(client: httpx.AsyncClient, swarm: PageSwarm) -> None:
        told = Paths.model_validate_json((await client.get("/paths")).content)
        assert told.paths == list(PATHS)
        tick = swarm.rounds(None, None, 1).rounds[0].tick
        for row in told.paths:
            if row.method != "GET" or row.path == "/stream":
                continue
            answer = await client.get(row.path.format(tick=tick), follow_redirects=True)
            assert answer.status_code == 200, row.path
            if row.model:
                MODELS[row.model].model_validate_json(answer.content)
        looked_at = {row.path for row in told.paths if row.method == "GET"}
        for row in told.paths:
            if (
                row.method == "POST" and row.path not in looked_at
            ):  # and no action is taken because somebody looks at its path
                assert (await client.get(row.path)).status_code == 405

    with_page(check)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", 200),
        ("?limit=1", 200),
        (f"?limit={MAX_ROUNDS}", 200),
        (f"?limit={MAX_ROUNDS + 1}", 400),
        ("?limit=0", 400),
        ("?limit=-1", 400),
        ("?limit=1e2", 400),
        ("?limit=%C2%B2", 400),  # ², a digit that is no number
        (f"?limit={'1' * 5000}", 400),
        ("?before=1", 200),
        ("?before=", 400),
        ("?before=soon", 400),
        (f"?before={1 << 62}", 200),
        (f"?before={(1 << 62) + 1}", 400),
        ("?block=there-is-none", 200),
    ],
)
def test_how_many_rounds_may_be_asked_for(query: str, code: int) -> None:
    async def check(client: httpx.AsyncClient, swarm: PageSwarm) -> None:
        answer = await client.get(f"/rounds{query}")
        assert answer.status_code == code
        if code != 200:
            assert f"N from 1 to {MAX_ROUNDS}" in answer.json()["error"]
        if query == "?limit=1":
            assert len(answer.json()["rounds"]) == 1
        if "there-is-none" in query:
            assert answer.json() == {"rounds": [], "older": None}

    with_page(check)


def test_all_rounds_can_be_had_a_page_at_a_time() -> None:
    async def check(client: httpx.AsyncClient, swarm: PageSwarm) -> None:
        ticks: list[int] = []
        before = ""
        while True:
            found = (await client.get(f"/rounds?block=expert.0&limit=40{before}")).json()
            ticks += [each["tick"] for each in found["rounds"]]
            if found["older"] is None:
                break
            before = f"&before={found['older']}"
        assert ticks == sorted(set(ticks), reverse=True)
        assert len(ticks) > 150

    with_page(check)


def test_one_round_has_a_path_of_its_own() -> None:
    async def check(client: httpx.AsyncClient, swarm: PageSwarm) -> None:
        newest = swarm.rounds(None, None, 1).rounds[0]
        found = (await client.get(f"/rounds/{newest.tick}")).json()["rounds"]
        assert newest.model_dump(mode="json") in found
        assert {each["tick"] for each in found} == {newest.tick}
        one = (await client.get(f"/rounds/{newest.tick}?block={newest.block}")).json()["rounds"]
        assert [each["block"] for each in one] == [newest.block]
        assert "no round that began at tick 7" in (await client.get("/rounds/7")).json()["error"]
        assert (await client.get("/rounds/soon")).status_code == 400

    with_page(check)


def test_a_daemon_that_knows_less_shows_less() -> None:
    """What is not filled in yet is empty, and no error."""
    bare = Shown(PageSwarm(2).status, PageSwarm(2).pulse)

    async def check(client: httpx.AsyncClient, swarm: PageSwarm) -> None:
        assert (await client.get("/share")).json() is None
        assert (await client.get("/rounds")).json() == {"rounds": [], "older": None}
        assert (await client.get("/answers")).json() == {"prompts": []}
        assert (await client.get("/curves")).json()["run"] == {}
        asked = await client.post("/ask", json={"prompt": "a"})
        assert asked.status_code == 409
        assert "shoal ask" in asked.json()["error"]

    with_page(check, curves=bare.curves, rounds=bare.rounds, answers=bare.answers, share=bare.share, ask=bare.ask)
