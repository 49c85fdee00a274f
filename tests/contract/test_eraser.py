"""What every Eraser promises, and what erasure by order makes of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests.contract.erasing import (
    BY_SHA,
    OTHER,
    PICTURE,
    SECRETS,
    SHA,
    Erasing,
    by_me,
    count,
    decided,
    everything,
    objects,
    submit,
    work,
)
from tests.contract.samples import FINDINGS, a_case
from tests.unit.core.worlds import ChosenHandlers
from unmask.adapters.database import Database
from unmask.adapters.store_erase_statements import LOCK_UNREAD
from unmask.adapters.store_rows import case_row
from unmask.adapters.store_tables import cases, shadow_scores
from unmask.core.domain import (
    BlobSource,
    CaseUpdate,
    Failure,
    PictureInfo,
    Stage,
    State,
    Step,
    UrlSource,
)
from unmask.core.erasing import Erased, EraseOffice, Selection, erase
from unmask.core.errors import BadRequest, UnknownCase
from unmask.core.submit import picture_key
from unmask.core.world import World


class TestErase(Erasing):
    """By order."""

    def test_nothing_is_left_of_a_picture_but_tombstones(self, world: World, office: EraseOffice, tables: Database) -> None:
        first, second = decided(world, idempotency_key="key-7"), decided(world)
        failing = submit(world)
        kept = replace(failing, revision=1, stage=Stage.ALIGNED, sha256=SHA, failure=Failure("unavailable", SHA))
        picture = PictureInfo("default", SHA, picture_key("default", SHA), 9, "PNG", 2, 2, phash="ab" * 32)
        assert world.store.commit(failing, CaseUpdate(kept, picture, FINDINGS))
        with tables.transaction() as connection:
            row = {
                "tenant": "default",
                "case_id": first.id,
                "release": "r",
                "label": "real",
                "active": "b",
                "active_label": "real",
                "at": 1,
            }
            connection.execute(sa.insert(shadow_scores), row)
        world.blobs.put(picture_key("default", SHA), PICTURE)
        gone = erase(office, "default", BY_SHA, by_me(office))
        assert gone.counts == {"cases": 3, "pictures": 1, "verdicts": 1, "decisions": 4, "events": 2, "blobs": 1}
        left = everything(tables, "default")
        # What receivers hear is sent to where they listen; it goes with the event.
        assert not [secret for secret in SECRETS if secret in left.replace("'target': 'https://hook.example.com/in'", "")]
        assert not list(world.blobs.keys("default/")) and count(tables, shadow_scores) == 0
        for case in (first, second, kept):
            tomb = world.store.case("default", case.id)
            assert (tomb.state, tomb.revision, tomb.created_at) == (State.ERASED, case.revision + 1, case.created_at)
            assert tomb.failure == Failure("erased", "requested by cli:me")
            assert (tomb.label, tomb.action, tomb.reviewed, dict(tomb.labels)) == (None, None, False, {})
            assert world.store.verdict_of("default", case.id) is None
            assert {(d.actor, d.truth, d.note) for d in world.store.decisions("default", case.id)} <= {
                ("policy", "", ""),
                ("reviewer:ann", "", ""),
            }

    def test_receivers_hear_of_it_once_and_of_nothing_before_it(self, world: World, office: EraseOffice) -> None:
        case = decided(world)
        assert [event.kind for event in world.store.outbox(9)] == ["verdict.decided"]
        for _ in range(2):
            erase(office, "default", BY_SHA, by_me(office, "court_order"))
        (event,) = world.store.outbox(9)
        assert (event.kind, event.target, event.sequence) == ("case.erased", case.callback, case.revision + 1)
        assert json.loads(event.body) == {"id": case.id, "reason": "court_order"}

    def test_again_it_finds_nothing_more(self, world: World, office: EraseOffice, tables: Database) -> None:
        case = decided(world)
        erase(office, "default", BY_SHA, by_me(office))
        before = everything(tables, "default").replace("audit", "")
        for selection in (BY_SHA, Selection(case_id=case.id), Selection(label=("uploader", "Zoë"))):
            assert erase(office, "default", selection, by_me(office, "again")) == Erased()
        after = [line for line in everything(tables, "default").splitlines() if not line.startswith("audit")]
        assert [line for line in before.splitlines() if line.startswith(("cases", "outbox", "decisions"))] == [
            line for line in after if line.startswith(("cases", "outbox", "decisions"))
        ]

    def test_the_same_bytes_are_judged_anew(self, world: World, office: EraseOffice, handlers: ChosenHandlers) -> None:
        decided(world, idempotency_key="key-7")
        erase(office, "default", BY_SHA, by_me(office))
        assert handlers.calls.count(Step.CLASSIFY) == 1
        again = decided(world, idempotency_key="key-7")
        assert handlers.calls.count(Step.CLASSIFY) == 2
        verdict = world.store.verdict_of("default", again.id)
        assert verdict is not None and world.blobs.get(picture_key("default", SHA)) == PICTURE

    def test_another_tenants_same_picture_stays_whole(self, world: World, office: EraseOffice, tables: Database) -> None:
        ours, theirs = decided(world), decided(world, "other")
        before = everything(tables, "other")
        for selection in (BY_SHA, Selection(label=("uploader", "Zoë"))):
            erase(office, "default", selection, by_me(office))
        assert everything(tables, "other") == before and world.blobs.get(picture_key("other", SHA)) == PICTURE
        for stranger in (theirs, replace(ours, id="nobody")):
            with pytest.raises(UnknownCase):
                erase(office, "default", Selection(case_id=stranger.id), by_me(office))
        assert everything(tables, "other") == before

    def test_a_case_means_its_picture_and_a_label_all_its_pictures(self, world: World, office: EraseOffice) -> None:
        first, second, third = decided(world), decided(world), decided(world, data=OTHER)
        other = decided(world, data=b"3", labels={"uploader": "Zoë ", "Zoë": "uploader"})
        erase(office, "default", Selection(case_id=second.id), by_me(office))
        assert [world.store.case("default", c.id).state for c in (first, second, third)] == [State.ERASED] * 2 + [State.DECIDED]
        gone = erase(office, "default", Selection(label=("uploader", "Zoë")), by_me(office))
        assert gone.counts["cases"] == 1 and world.store.case("default", other.id) == other

    def test_labels_may_have_any_name_and_value(self, world: World, office: EraseOffice) -> None:
        names = ("uploader", 'qu"ote', "back\\slash", "'; drop table cases; --", "空 🦊", "$.a[0]", "a.b", "%", "")
        for number, name in enumerate(names):
            case = submit(world, data=b"a%d" % number, labels={name: name, "x": "y"})
            other = submit(world, data=b"b%d" % number, labels={name: name + " "})
            assert erase(office, "default", Selection(label=(name, name)), by_me(office)).cases == 1
            assert [world.store.case("default", one.id).state for one in (case, other)] == [State.ERASED, State.OPEN]

    def test_more_pictures_than_one_page_go(self, world: World, office: EraseOffice, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("unmask.core.erasing._PAGE", 3)
        for number in range(8):
            submit(world, data=b"%d" % (number // 2))
        selection = Selection(label=("uploader", "Zoë"))
        assert erase(office, "default", selection, by_me(office), dry_run=True).counts["cases"] == 8
        gone = erase(office, "default", selection, by_me(office))
        assert (gone.cases, len(gone.blobs)) == (8, 4) and not objects(world)

    def test_a_dry_run_says_the_same_and_does_nothing(self, world: World, office: EraseOffice, tables: Database) -> None:
        decided(world), decided(world), submit(world, source=UrlSource("https://example.org/a.png"))
        world.blobs.put("default/uploads/a.png", OTHER)
        decided(world, source=BlobSource("default/uploads/a.png"))
        before = everything(tables, "default")
        selection = Selection(label=("uploader", "Zoë"))
        would = erase(office, "default", selection, by_me(office), dry_run=True)
        assert everything(tables, "default") == before and len(objects(world)) == 3
        assert would.counts == erase(office, "default", selection, by_me(office)).counts
        assert would.cases == 4 and set(would.blobs) == {
            picture_key("default", SHA),
            picture_key("default", hashlib.sha256(OTHER).hexdigest()),
            "default/uploads/a.png",
        }

    def test_uploads_go_with_their_cases_and_other_objects_stay(self, world: World, office: EraseOffice) -> None:
        for key in ("default/uploads/a.png", "default/mine/b.png"):
            world.blobs.put(key, PICTURE)
            decided(world, source=BlobSource(key))
        waiting = submit(world, source=BlobSource("default/uploads/c.png"))
        world.blobs.put("default/uploads/c.png", PICTURE)
        erase(office, "default", BY_SHA, by_me(office))
        assert list(world.blobs.keys("default/")) == ["default/mine/b.png", "default/uploads/c.png"]
        work(world)
        assert world.store.case("default", waiting.id).state is State.DECIDED

    def test_it_is_logged_without_what_was_erased(self, world: World, office: EraseOffice) -> None:
        decided(world)
        for selection in (BY_SHA, Selection(label=("uploader", "Zoë"))):
            erase(office, "default", selection, by_me(office))
        entries = office.access.audited("default", 9)
        assert [(e.actor, e.act, e.subject) for e in entries] == [
            ("cli:me", "erase.done", "label uploader"),
            ("cli:me", "erase", "label uploader"),
            ("cli:me", "erase.done", "picture"),
            ("cli:me", "erase", "picture"),
        ]
        assert entries[2].detail["cases"] == "1" and entries[2].detail["reason"] == "requested"

    def test_unclear_orders_are_refused(self, office: EraseOffice) -> None:
        unclear = (Selection(), Selection("a", SHA), Selection(sha256=SHA[:63]), Selection(sha256=SHA.upper()))
        for selection, reason in (*((each, "x") for each in unclear), (BY_SHA, "Because!"), (BY_SHA, "")):
            with pytest.raises(BadRequest):
                erase(office, "default", selection, by_me(office, reason))


class TestIndexes(Erasing):
    """Quick also when tombstones are many."""

    def test_what_nobody_read_yet_is_found_by_its_index(self, tables: Database) -> None:
        """Tombstones have no hash either: a look-up must not go through all of them."""
        tombs = [case_row(a_case("t", state=State.ERASED, source_ref="")) | {"sha256": ""} for _ in range(3000)]
        with tables.transaction() as connection:
            connection.execute(sa.insert(cases), tombs)
            connection.execute(sa.insert(cases), [case_row(a_case("t", source_ref=f"t/pictures/{n:064x}")) for n in range(50)])
        with tables.transaction() as connection:
            connection.exec_driver_sql("ANALYZE cases")
            asked = LOCK_UNREAD.params(owner="t", key=f"t/pictures/{7:064x}")
            text = asked.compile(tables.engine, compile_kwargs={"literal_binds": True})
            words = "EXPLAIN QUERY PLAN" if tables.dialect == "sqlite" else "EXPLAIN"
            plan = [str(row) for row in connection.exec_driver_sql(f"{words} {text}")]
        assert any("cases_unread" in row for row in plan), plan
