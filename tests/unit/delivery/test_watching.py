"""What the sweeper's looks at store and releases show."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.contract.samples import NOW, a_case
from tests.system.tiny_models import make_repository
from tests.unit.core.worlds import StillClock
from unmask.adapters.model_repository import ModelRepository
from unmask.adapters.models_local import LocalModels
from unmask.adapters.store_sql import SqlStore
from unmask.adapters.store_watch import SqlWatch
from unmask.core import metrics
from unmask.core.cards import Release
from unmask.core.errors import BadModel
from unmask.core.metrics import Metric
from unmask.core.readouts import Reference
from unmask.delivery.watching import Lookout, watch_duties, watch_queue, watch_releases, watch_reviews


@dataclass
class Gauges:
    """An observer that remembers what gauges show."""

    shown: dict[str, Mapping[tuple[str, ...], float]] = field(default_factory=dict)

    def gauged(self, metric: Metric, values: Mapping[tuple[str, ...], float]) -> None:
        assert all(len(labels) == len(metric.labels) for labels in values), metric.name
        self.shown[metric.name] = values


@dataclass
class Releases:
    """A catalogue of one release, and perhaps one on trial."""

    release: Release
    trial: tuple[Release, float] | None = None

    def active_release(self) -> Release:
        return self.release

    def shadow(self) -> tuple[Release, float] | None:
        return self.trial


@pytest.fixture
def gauges() -> Gauges:
    return Gauges()


def look(gauges: Gauges, root: Path, knowing: bool, store: SqlStore) -> Lookout:
    clock = StillClock()
    clock.time = NOW
    repository = ModelRepository(make_repository(root / "models", knowing=knowing))
    everything: Any = (SqlWatch(store.database), Releases(repository.release()), LocalModels(repository), clock, gauges)
    return Lookout(*everything)


def test_an_empty_queue_shows_as_nought_for_every_step_and_lane(gauges: Gauges, tmp_path: Path) -> None:
    with closing(SqlStore.in_memory()) as store:
        store.accept(a_case(created_at=NOW - timedelta(seconds=70)))
        watch_queue(look(gauges, tmp_path, False, store))
    assert gauges.shown["unmask_open_cases"]["ingest", "live"] == 1
    assert gauges.shown["unmask_queue_age_seconds"]["ingest", "live"] == 70.0
    assert len(gauges.shown["unmask_open_cases"]) == 10 and sum(gauges.shown["unmask_open_cases"].values()) == 1
    assert gauges.shown["unmask_outbox_age_seconds"] == {(): 0.0}
    assert gauges.shown["unmask_watched_timestamp_seconds"] == {(): NOW.timestamp()}


def test_releases_in_use_and_the_scores_that_the_card_states(gauges: Gauges, tmp_path: Path) -> None:
    with closing(SqlStore.in_memory()) as store:
        there = look(gauges, tmp_path, True, store)
        watch_releases(there)
        release = there.catalogue.active_release()
        assert gauges.shown["unmask_release_info"] == {("active", "tiny", release.sha256[:12], "1"): 1.0}
        assert len(gauges.shown["unmask_model_info"]) == 3 and gauges.shown["unmask_shadow_share"] == {(): 0.0}
        shares = gauges.shown["unmask_detector_reference_share"]
        assert shares["1", "real", "0.1"] == 0.9 and shares["1", "synthetic", "1.0"] == 0.9 and len(shares) == 20
        assert isinstance(there.catalogue, Releases)
        there.catalogue.trial = (replace(release, name="next", sha256="f" * 64), 0.25)
        watch_releases(there)
    assert {labels[0] for labels in gauges.shown["unmask_release_info"]} == {"active", "shadow"}
    assert gauges.shown["unmask_shadow_share"] == {(): 0.25}


def test_what_a_release_states_stands_before_its_card(gauges: Gauges, tmp_path: Path) -> None:
    with closing(SqlStore.in_memory()) as store:
        there = look(gauges, tmp_path, True, store)
        stated = Reference(metrics.BINS, (0.7, *[0.0] * 8, 0.3), (0.3, *[0.0] * 8, 0.7))
        watch_releases(replace(there, catalogue=Releases(replace(there.catalogue.active_release(), reference=stated))))
    shares = gauges.shown["unmask_detector_reference_share"]
    assert (shares["1", "real", "0.1"], shares["1", "synthetic", "1.0"], len(shares)) == (0.7, 0.7, 20)


def test_a_card_without_a_reference_and_a_sweeper_without_models_show_none(gauges: Gauges, tmp_path: Path) -> None:
    with closing(SqlStore.in_memory()) as store:
        there = look(gauges, tmp_path, False, store)
        watch_releases(there)
        assert gauges.shown["unmask_detector_reference_share"] == {}

        class Nowhere:
            def card(self, ref: Any) -> Any:
                raise BadModel("no such folder")

        nowhere: Any = Nowhere()
        watch_releases(replace(there, models=nowhere))
    assert gauges.shown["unmask_detector_reference_share"] == {} and gauges.shown["unmask_release_info"]


def test_what_nobody_has_done_yet_shows_as_nothing(gauges: Gauges, tmp_path: Path) -> None:
    with closing(SqlStore.in_memory()) as store:
        there = look(gauges, tmp_path, False, store)
        watch_reviews(there)
        assert [duty.name for duty in watch_duties(there)] == ["watch_queue", "watch_reviews", "watch_releases"]
    names = (metrics.REVIEWED_CASES, metrics.UNKNOWN_CLUSTER, metrics.DISCOVERED_AT)
    assert [gauges.shown[metric.name] for metric in names] == [{}, {}, {}]
