"""All metrics of Unmask: names, what they mean, labels and buckets; dashboards, rules and tests are held against this list."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What Prometheus calls its type."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; `buckets` are the upper bounds of a histogram's (a last one for all else is implied)."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names that its samples have."""
        endings = ("_bucket", "_sum", "_count") if self.kind is Kind.HISTOGRAM else ("",)
        return tuple(self.name + ending for ending in endings)


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, text, labels)


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, Kind.GAUGE, text, labels)


def _histogram(name: str, buckets: tuple[float, ...], text: str, *labels: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, text, labels, buckets)


# A pure step takes milliseconds, a model on a busy server seconds, a child is killed after two minutes.
SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0)
# From the caller's side: what somebody waits for, what is late, what an outage held up.
WAITS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0, 259200.0)
# Half of the width that the drift rules take for a bin, so that a threshold between two bins can be seen.
SCORES: Final = tuple(round(0.05 * number, 2) for number in range(1, 21))
# The bins over which the population stability index is summed, by their upper bounds: tenths, as is the custom.
BINS: Final = SCORES[1::2]
# Of faces like those that a detector was calibrated on, a hundredth lies above 0.99.
_DOUBTS: Final = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0)
_GAPS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
_FEW: Final = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 32.0)

# The label of what would be one series too many, and of what does not apply.
OTHER: Final = "other"
NONE: Final = "none"
# The codes of a call that went well, and of one whose caller went away.
OK: Final = "ok"
CANCELLED: Final = "cancelled"
# So many tenants have series of their own, those that were there first.
MOST_TENANTS: Final = 50
# So many values of a label that is not a closed list (families, codes, releases, versions, sinks, methods) a process counts.
MOST_VALUES: Final = 64

# What steps do.
STAGE_SECONDS: Final = _histogram(
    "unmask_stage_seconds", SECONDS, "Seconds that one step of one case took in a worker.", "step"
)
STAGE_OUTCOMES: Final = _counter(
    "unmask_stage_outcomes_total",
    "What came of steps: done, reused (the verdict of the same bytes was taken), retry, failed, dead; with the failure's code.",
    "step",
    "outcome",
    "code",
)
CASE_SECONDS: Final = _histogram(
    "unmask_case_seconds",
    WAITS,
    "Seconds from the acceptance of a case to its end, by lane and by how it ended.",
    "lane",
    "state",
)
DUTIES: Final = _counter(
    "unmask_duties_total",
    "What background duties did: cases published again or expired, orphans removed, shadow scores; NAME_failed: it broke.",
    "duty",
)

# What verdicts say.
VERDICTS: Final = _counter(
    "unmask_verdicts_total",
    "Cases decided, those included whose verdict was reused: by tenant, label, action and version of the detector.",
    "tenant",
    "label",
    "action",
    "detector",
)
FACES: Final = _counter(
    "unmask_faces_total",
    "Faces judged, by their label, by the generator family that a face called synthetic is attributed to, and by detector.",
    "label",
    "family",
    "detector",
)
FACE_SCORE: Final = _histogram(
    "unmask_face_score", SCORES, "The detector's calibrated probability that a face is generated.", "detector"
)
FACE_DOUBT: Final = _histogram(
    "unmask_face_doubt",
    _DOUBTS,
    "Share of the faces that the detector was calibrated on which lie nearer to what it knows than this face does.",
    "detector",
)
DEFENCE_GAP: Final = _histogram(
    "unmask_defence_gap",
    _GAPS,
    "Absolute difference of the detector's probabilities for a face and for a blurred copy: large ones hint at an attack.",
    "detector",
)
PICTURE_FACES: Final = _histogram("unmask_picture_faces", _FEW, "Faces found in a picture.")
PICTURE_REGIONS: Final = _histogram("unmask_picture_regions", _FEW, "Manipulated regions found in a picture.")

# What the store holds; read by `unmask work sweep`.
OPEN_CASES: Final = _gauge("unmask_open_cases", "Open cases by the step that they wait for, and lane.", "step", "lane")
QUEUE_AGE: Final = _gauge(
    "unmask_queue_age_seconds",
    "Seconds since the oldest open case that waits for the step was accepted; 0: none.",
    "step",
    "lane",
)
OUTBOX_EVENTS: Final = _gauge("unmask_outbox_events", "Events that still have to go out.")
OUTBOX_AGE: Final = _gauge(
    "unmask_outbox_age_seconds", "Seconds since the oldest event that has to go out happened; 0 for none."
)
DEAD_ITEMS: Final = _gauge("unmask_dead_items", "Dead cases, events and letters that nobody has seen to.", "kind")
REVIEWED_CASES: Final = _gauge(
    "unmask_reviewed_cases",
    "Cases of the last thirty days that a reviewer has decided, by the verdict's label and by what the reviewer says it is.",
    "label",
    "truth",
)
UNKNOWN_CLUSTER: Final = _gauge(
    "unmask_largest_unknown_cluster", "Pictures in the largest cluster of unexplained faces, by the last `unmask discover`."
)
DISCOVERED_AT: Final = _gauge("unmask_discovered_timestamp_seconds", "When `unmask discover` was last run.")
WATCHED_AT: Final = _gauge("unmask_watched_timestamp_seconds", "When the store was last read for these gauges.")
WATCH_SECONDS: Final = _gauge("unmask_watch_seconds", "Seconds that the last reading of the store for these gauges took.")
RELEASE_INFO: Final = _gauge(
    "unmask_release_info", "1 for each release in use: active or shadow.", "role", "release", "sha256", "detector"
)
MODEL_INFO: Final = _gauge(
    "unmask_model_info",
    "1 for each model version that the active or shadow release names.",
    "role",
    "model",
    "version",
    "sha256",
)
SHADOW_SHARE: Final = _gauge("unmask_shadow_share", "Share of the cases that the release on trial scores too; 0 for no trial.")
REFERENCE_SHARE: Final = _gauge(
    "unmask_detector_reference_share",
    "Share of the calibration pictures whose score lies in the bin up to `bin`, where the active detector's card states it.",
    "detector",
    "truth",
    "bin",
)

# What a release on trial says.
SHADOW_CASES: Final = _counter(
    "unmask_shadow_cases_total",
    "Cases that the release on trial scored too, by the active release's label and its own (failed: it broke).",
    "release",
    "active",
    "shadow",
)
SHADOW_DIFFERENCE: Final = _histogram(
    "unmask_shadow_difference",
    _GAPS,
    "Absolute difference of the picture's scores by the active release and by that on trial.",
    "release",
)

# What goes out, and what comes in.
DELIVERIES: Final = _counter(
    "unmask_deliveries_total", "Attempts to deliver an event: accepted, failed, refused, postponed.", "sink", "outcome"
)
DELIVERY_LAG: Final = _histogram(
    "unmask_delivery_lag_seconds",
    WAITS,
    "Seconds from an event to its acceptance by a receiver, all attempts included.",
    "sink",
)
RPC_SECONDS: Final = _histogram(
    "unmask_rpc_seconds", SECONDS, "Seconds that a gRPC call took, by method and by error code (ok: none).", "method", "code"
)

# What a process is.
BUILD_INFO: Final = _gauge("unmask_build_info", "1, of each process of Unmask.", "version", "process")
WORKER_SLOTS: Final = _gauge("unmask_worker_slots", "Cases, events or messages that the process works at once.", "process")
CERTIFICATE_EXPIRY: Final = _gauge(
    "unmask_certificate_expiry_timestamp_seconds", "When the TLS certificate of UNMASK_TLS_CERT stops being valid.", "process"
)

ALL: Final[tuple[Metric, ...]] = tuple(found for found in tuple(globals().values()) if isinstance(found, Metric))


def bin_name(upper: float) -> str:
    """How a bin is called as a label: its upper bound, as Prometheus writes a bucket's."""
    return f"{upper:g}" if upper % 1 else f"{upper:.1f}"
