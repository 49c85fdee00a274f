"""Releases and policies on a live deployment: pointers move under load, what is broken is refused, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.system.command import Ran
from tests.system.releases import Deployment, add_detector, copied, deployed, nan_model, operator, release_of, upgraded
from tests.system.tiny_models import face_picture
from unmask.adapters.store_access import SqlAccess
from unmask.cli.main import main
from unmask.core.access import Tenant
from unmask.core.domain import Action, Case, Label, State
from unmask.core.errors import BadModel
from unmask.core.submit import publish

_CASES, _MOVES = 300, 20


@pytest.fixture
def root(tiny: Path, tmp_path: Path) -> Path:
    return copied(tiny, tmp_path / "models")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind."""
    if request.param == "postgres":
        return upgraded(request.getfixturevalue("database"))
    return f"sqlite:///{tmp_path / 'shared.sqlite3'}"


@pytest.fixture
def here(tmp_path: Path) -> str:
    """A SQLite file, where the kind does not matter."""
    return f"sqlite:///{tmp_path / 'shared.sqlite3'}"


Cli = Callable[..., Ran]


@pytest.fixture
def cli(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs the command in this process, as whoever sits at another machine: a start of Python costs more than all else."""

    def ran(*words: object, url: str = "") -> Ran:
        monkeypatch.setenv("UNMASK_MODELS", str(root))
        monkeypatch.setenv("UNMASK_DATABASE", url)
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return Ran(code, said.out.encode(), said.err)

    return ran


def move_under_load(site: Deployment, root: Path, url: str, submitted: list[Case]) -> None:
    """Promotes and rolls back in turn, each time once so many more cases were accepted."""
    second = release_of(root, "second", (2, add_detector(root, 2)), synthetic=0.9)
    with operator(root, url) as desk:
        desk.put(second, "second.json")
        for number in range(_MOVES):
            site.wait(lambda number=number: len(submitted) >= (number + 1) * _CASES // (_MOVES + 2))
            if number % 2:
                desk.roll_back()
            else:
                desk.promote("second")


def test_promote_and_rollback_under_load_lose_and_fail_nothing(root: Path, url: str, tmp_path: Path) -> None:
    with deployed(root, url, tmp_path) as site:
        first = site.world.catalogue.active_release()
        submitted: list[Case] = []
        turn = threading.Lock()

        def submit(number: int) -> None:
            case = site.submit(face_picture(red=40 * (number % 6), blue=0, seed=number), "load")
            with turn:
                submitted.append(case)
            with site.changed:
                site.changed.notify_all()

        with ThreadPoolExecutor(4) as pool:
            mover = pool.submit(move_under_load, site, root, url, submitted)
            list(pool.map(submit, range(_CASES)))
            mover.result(timeout=120)
        site.wait(lambda: site.count("load") == _CASES)
        assert site.world.store.progress("default", "load") == {State.DECIDED: _CASES}
        pinned = Counter(case.release for case in submitted)
        assert len(pinned) == 2 and first.sha256 in pinned and min(pinned.values()) > _CASES // 10, pinned
        for case in submitted:
            ended, verdict = site.world.store.case("default", case.id), site.world.store.verdict_of("default", case.id)
            assert verdict is not None and verdict.release.sha256 == ended.release == case.release
            detector = next(model.version for model in verdict.models if model.name == "detector")
            assert detector == (1 if case.release == first.sha256 else 2)
        assert len(site.world.store.outbox(_CASES + 1)) == _CASES
        acts = Counter(entry.act for entry in SqlAccess(site.parts.database).audited(None, 99))
        assert acts == {"release.put": 1, "release.promote": _MOVES // 2, "release.rollback": _MOVES // 2}
        print(f"\n{_CASES} cases, {_MOVES} moves: lost 0, failed 0; by release {sorted(pinned.values())}")


def _missing_version(root: Path) -> bytes:
    return release_of(root, "bad", (7, "a" * 64))


def _another_card(root: Path) -> bytes:
    return release_of(root, "bad", (1, "a" * 64))


def _missing_file(root: Path) -> bytes:
    sha256 = add_detector(root, 2)
    (root / "detector/2/model.onnx").unlink()
    return release_of(root, "bad", (2, sha256))


def _corrupt_file(root: Path) -> bytes:
    sha256 = add_detector(root, 2)
    (root / "detector/2/model.onnx").write_bytes(b"\0" * 100)
    return release_of(root, "bad", (2, sha256))


def _no_graph(root: Path) -> bytes:
    return release_of(root, "bad", (2, add_detector(root, 2, b"no graph")))


def _no_number(root: Path) -> bytes:
    return release_of(root, "bad", (2, add_detector(root, 2, nan_model())))


def _no_release(root: Path) -> bytes:
    return b'{"schema": "unmask.release/1"}'


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (_missing_version, "detector/7/card.json: missing"),
        (_another_card, "the release names aaaaaaaaaaaa"),
        (_missing_file, "detector/2/model.onnx: missing"),
        (_corrupt_file, "detector/2/model.onnx: sha256 is"),
        (_no_graph, "cannot be loaded"),
        (_no_number, "'synthetic' is missing or not finite"),
        (_no_release, "field"),
    ],
)
def test_a_broken_release_is_refused_and_the_old_one_serves(
    broken: Any, told: str, cli: Cli, root: Path, here: str, tmp_path: Path
) -> None:
    with deployed(root, here, tmp_path, seconds=0.0) as site:
        before = site.world.catalogue.active_release()
        (tmp_path / "bad.json").write_bytes(broken(root))
        ran = cli("models", "put-release", tmp_path / "bad.json", url=here)
        assert (ran.code, ran.out) == (3, b"") and told in ran.complaint
        assert cli("models", "promote", "bad", url=here).code == 1
        assert site.ended(site.submit(face_picture())).state is State.DECIDED
        assert site.world.catalogue.active_release() == before
        assert SqlAccess(site.parts.database).audited(None, 9) == []


def test_what_broke_since_it_was_put_is_not_promoted(root: Path, here: str, tmp_path: Path) -> None:
    with deployed(root, here, tmp_path, seconds=0.0) as site, operator(root, here) as desk:
        before = site.world.catalogue.active_release()
        desk.put(release_of(root, "second", (2, add_detector(root, 2))), "second.json")
        (root / "detector/2/model.onnx").write_bytes(b"cut")
        for move in (lambda: desk.promote("second"), lambda: desk.try_out("second", 0.5)):
            with pytest.raises(BadModel, match="second is refused"):
                move()
        assert site.world.catalogue.active_release() == before and site.world.catalogue.shadow() is None


def test_a_shadow_that_breaks_disturbs_nobody(cli: Cli, root: Path, here: str, tmp_path: Path) -> None:
    with deployed(root, here, tmp_path, seconds=0.0) as site:
        site.world.catalogue.active_release()
        with operator(root, here) as desk:
            desk.put(release_of(root, "trial", (2, add_detector(root, 2))), "trial.json")
            desk.try_out("trial", 1.0)
        (root / "detector/2/model.onnx").unlink()
        cases = [site.submit(face_picture(seed=number), "load") for number in range(20)]
        site.wait(lambda: site.count("load") == len(cases))
        on_trial = site.world.catalogue.shadow()
        assert on_trial is not None
        pair = on_trial[0].sha256, site.world.catalogue.active_release().sha256
        site.wait(lambda: sum(cell.cases for cell in site.parts.shadows.compared(*pair)) == len(cases))
        assert {cell.shadow for cell in site.parts.shadows.compared(*pair)} == {None}
        assert {event.kind for event in site.world.store.outbox(99)} == {"verdict.decided"}
    ran = cli("models", "disagreement", "--json", url=here)
    assert (ran.code, ran.lines[0]["failed"], ran.lines[0]["cases"]) == (0, 20, 0)


def test_the_command_line_releases_tries_promotes_and_rolls_back(cli: Cli, root: Path, here: str, tmp_path: Path) -> None:
    """As an operator does it, while a process works."""
    (tmp_path / "second.json").write_bytes(release_of(root, "second", synthetic=0.9999, synthetic_real=0.0))
    sha256 = hashlib.sha256((tmp_path / "second.json").read_bytes()).hexdigest()
    with deployed(root, here, tmp_path, seconds=0.0) as site:
        site.world.catalogue.active_release()
        assert "its models answer" in cli("models", "put-release", tmp_path / "second.json", url=here).out.decode()
        assert "already kept" in cli("models", "put-release", tmp_path / "second.json", url=here).out.decode()
        assert cli("models", "shadow", sha256[:8], "--share", "1", url=here).code == 0
        cases = [site.submit(face_picture(red=210, blue=10, seed=number), "load") for number in range(4)]
        site.wait(lambda: site.count("load") == len(cases))
        active = site.world.catalogue.active_release().sha256
        site.wait(lambda: sum(cell.cases for cell in site.parts.shadows.compared(sha256, active)) == len(cases))
        (line,) = cli("models", "disagreement", "--json", url=here).lines
        assert (line["shadow"], line["active"], line["cases"], line["differ"]) == ("second", "tiny", 4, 4)
        assert line["labels"] == {"synthetic": {"unsure": 4}} and line["mean_difference"] == 0.0
        people = cli("models", "disagreement", url=here).out.decode().splitlines()
        assert people[0].endswith("4 cases, 4 labelled otherwise (100.0%)") and people[2].split() == [
            "synthetic",
            "4",
            "0.0000",
        ]
        assert cli("models", "promote", "second", url=here).code == 0
        assert site.world.catalogue.active_release().sha256 == sha256 and site.world.catalogue.shadow() is None
        listed = [row for row in cli("models", "list", "--json", url=here).lines if "release" in row]
        assert {row["release"]: row["roles"] for row in listed} == {"second": ["active"], "tiny": ["previous"]}
        assert cli("models", "rollback", url=here).out.decode().startswith("tiny ")
        assert site.world.catalogue.active_release().sha256 == active
        assert cli("models", "shadow", "second", "--share", "0.25", url=here).code == 0
        assert "shadow 25.00%" in cli("models", "list", url=here).out.decode()
        assert cli("models", "shadow", "--off", url=here).code == 0
        log = SqlAccess(site.parts.database).audited(None, 99)
        acts = ["release.put", "release.shadow", "release.promote", "release.rollback", "release.shadow", "release.shadow_off"]
        assert [entry.act for entry in reversed(log)] == acts and all(entry.actor.startswith("cli:") for entry in log)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("models", "promote", "nobody"), 1, "no release 'nobody'"),
        (("models", "rollback"), 1, "no previous release"),
        (("models", "shadow", "tiny", "--share", "0.5"), 1, "active release judges every case"),
        (("models", "shadow", "tiny", "--share", "1.5"), 1, "share 1.5"),
        (("models", "shadow", "tiny"), 1, "--share X, or --off"),
        (("models", "shadow", "--off", "--share", "0.5"), 1, "--share X, or --off"),
        (("models", "disagreement"), 1, "no release is the shadow"),
        (("models", "put-release", "/nowhere/release.json"), 2, "No such file"),
        (("policy", "put", "/nowhere/policy.yaml"), 2, "/nowhere/policy.yaml"),
        (("policy", "show", "--tenant", "nobody"), 1, "no tenant 'nobody'"),
    ],
)
def test_what_the_command_line_refuses(
    words: tuple[str, ...], code: int, told: str, cli: Cli, root: Path, here: str, tmp_path: Path
) -> None:
    with deployed(root, here, tmp_path) as site:
        site.world.catalogue.active_release()
    ran = cli(*words, url=here)
    assert (ran.code, ran.out) == (code, b"") and told in ran.complaint


@pytest.mark.parametrize("verb", ["put-release x", "promote x", "rollback", "shadow --off", "disagreement"])
def test_without_a_database_it_says_so(verb: str, cli: Cli) -> None:
    ran = cli("models", *verb.split())
    assert ran.code == 2 and "UNMASK_DATABASE" in ran.complaint


STRICT = """\
schema: unmask.policy/1
name: strict
rules:
  - when: {label: [synthetic, manipulated]}
    then: block
otherwise: review
"""


def test_a_tenants_policy_counts_for_new_cases_and_old_ones_keep_theirs(cli: Cli, root: Path, url: str, tmp_path: Path) -> None:
    fake, plain = face_picture(red=210, blue=10), face_picture(red=10, blue=10)
    (tmp_path / "strict.yaml").write_text(STRICT)
    with deployed(root, url, tmp_path, seconds=0.0) as site:
        access = SqlAccess(site.parts.database)
        for name in ("acme", "other"):
            access.put_tenant(Tenant(name, site.world.clock.now()))
        before = site.submit(fake, tenant="acme")
        assert site.ended(before).action is Action.REVIEW
        tested = cli("policy", "test", tmp_path / "strict.yaml", "--tenant", "acme", "--json", url=url)
        assert [(line["before"]["action"], line["after"]["action"]) for line in tested.lines] == [("review", "block")]
        assert cli("policy", "put", tmp_path / "strict.yaml", "--tenant", "acme", url=url).code == 0
        after, elsewhere = site.submit(fake, tenant="acme"), site.submit(fake, tenant="other")
        assert (site.ended(after).action, site.ended(elsewhere).action) == (Action.BLOCK, Action.REVIEW)
        assert site.ended(before).policy != site.ended(after).policy
        assert site.world.store.verdict_of("acme", before.id).action is Action.REVIEW  # type: ignore[union-attr]
        shown = cli("policy", "show", "--tenant", "acme", url=url).out.decode()
        assert "strict" in shown and "strict" not in cli("policy", "show", url=url).out.decode()
        assert "strict" not in cli("policy", "show", "--default", url=url).out.decode()
        (tmp_path / "shown.yaml").write_text(shown)
        again = cli("policy", "test", tmp_path / "shown.yaml", "--tenant", "acme", url=url)
        assert again.out.decode().splitlines()[-1] == "unmask: strict: 1 review -> block, 1 unchanged"
        assert cli("policy", "put", tmp_path / "strict.yaml", url=url).code == 0
        assert site.ended(site.submit(plain, tenant="other")).action is Action.REVIEW
        assert site.ended(site.submit(fake, tenant="acme")).label is Label.SYNTHETIC
        log = [(entry.act, entry.tenant) for entry in reversed(access.audited(None, 9))]
        assert log == [("policy.put", "acme"), ("policy.put", "")]


def test_a_case_that_waits_keeps_the_policy_it_was_accepted_under(cli: Cli, root: Path, here: str, tmp_path: Path) -> None:
    (tmp_path / "strict.yaml").write_text(STRICT)
    with deployed(root, here, tmp_path, seconds=0.0) as site:
        site.world.queue.close()  # type: ignore[attr-defined]
        case = site.submit(face_picture(red=210, blue=10))
        assert cli("policy", "put", tmp_path / "strict.yaml", url=here).code == 0
    with deployed(root, here, tmp_path, seconds=0.0) as site:
        publish(site.world, case)
        ended = site.ended(case)
        assert (ended.policy, ended.action) == (case.policy, Action.REVIEW)
        assert site.world.catalogue.active_policy("default").name == "strict"
        assert json.loads(site.world.store.outbox(9)[0].body)["policy"]["sha256"] == case.policy
