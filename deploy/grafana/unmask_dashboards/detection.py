"""The dashboard Detection: what is found, of which generators, and whether something new is about."""

from __future__ import annotations

from unmask.core import metrics as m
from unmask_dashboards.panels import Dashboard, Look, Panel, Query, Row, Steps, lines, stack, stat
from unmask_dashboards.queries import above, buckets, growth, latest, quantiles, rate, share

_TENANT = 'tenant=~"$tenant"'
_FACES = f'label!="no_face", {_TENANT}'
_FLAGGED = 'label=~"synthetic|manipulated"'
_UNSURE = 'label="unsure"'
_FAMILIES = growth(m.FACES, "family", where='label="synthetic"')
_ALARM = (
    "(max(unmask:strange_faces:ratio_rate1h > bool 0.05) or vector(0))"
    " + (max(unmask:face_score:psi > bool 0.25) or vector(0))"
    f" + (max({m.UNKNOWN_CLUSTER.name} >= bool 20) or vector(0))"
)

_GLANCE = Row(
    "At a glance",
    (
        stat(
            "Pictures judged",
            "Cases that were decided in the time range, those included whose verdict was known already.",
            growth(m.VERDICTS, where=_TENANT),
            decimals=0,
        ),
        stat(
            "Flagged",
            "Share of the pictures with faces that are called synthetic or manipulated. It is what is flagged, not what is "
            "fake: how much is missed, only reviewers can say (dashboard Models).",
            share(m.VERDICTS, of=_FLAGGED, among=_FACES, window="$__range"),
            unit="percentunit",
        ),
        stat(
            "Unsure",
            "Share of the pictures with faces of which nothing is claimed: between the thresholds, or too strange.",
            share(m.VERDICTS, of=_UNSURE, among=_FACES, window="$__range"),
            unit="percentunit",
            steps=Steps(orange=0.1, red=0.25),
        ),
        stat(
            "New generator?",
            "How many of three signs there are: more than 5 % of the faces strange to the detector, scores of another "
            "population than before (index above 0.25), a cluster of 20 or more unexplained faces. Not narrowed to tenants.",
            _ALARM,
            steps=Steps(orange=1, red=2),
            words=("no sign", "one sign", "two signs", "three signs"),
        ),
        stat(
            "Largest unknown cluster",
            "Pictures in the largest group of faces alike that no known generator explains, by the last `unmask discover`.",
            latest(m.UNKNOWN_CLUSTER),
            steps=Steps(orange=10, red=20),
        ),
        stat(
            "Last discovery",
            "How long ago `unmask discover` last looked. Run it daily: the cluster beside is no newer than this.",
            f"time() - {latest(m.DISCOVERED_AT)}",
            unit="s",
            steps=Steps(orange=2 * 86400, red=7 * 86400),
        ),
    ),
)

_VERDICTS = Row(
    "What verdicts say",
    (
        stack(
            "Verdicts", "Pictures a second by label.", Query(rate(m.VERDICTS, "label", where=_TENANT), "{{label}}"), unit="ops"
        ),
        lines(
            "Flagged and unsure",
            "Shares of the pictures with faces, by version of the detector.",
            Query(share(m.VERDICTS, "detector", of=_FLAGGED, among=_FACES), "flagged, detector {{detector}}"),
            Query(share(m.VERDICTS, "detector", of=_UNSURE, among=_FACES), "unsure, detector {{detector}}"),
            unit="percentunit",
        ),
        stack(
            "Actions",
            "What platforms are told to do, pictures a second.",
            Query(rate(m.VERDICTS, "action", where=_TENANT), "{{action}}"),
            unit="ops",
        ),
        lines(
            "Flagged by tenant",
            "Share of each tenant's pictures with faces that is flagged. The first fifty have names, all others are `other`.",
            Query(share(m.VERDICTS, "tenant", of=_FLAGGED, among=_FACES), "{{tenant}}"),
            unit="percentunit",
            width=12,
        ),
        lines(
            "Pictures by tenant",
            "Pictures a second that each tenant had judged.",
            Query(rate(m.VERDICTS, "tenant", where=_TENANT), "{{tenant}}"),
            unit="ops",
            width=12,
        ),
    ),
)

_GENERATORS = Row(
    "Generators",
    (
        stack(
            "Flagged faces by generator",
            "Faces a second that are called synthetic, by the family that each is attributed to; `unknown` is none of those "
            "that the detector was taught. Families say who, given that a face is generated. All tenants.",
            Query(rate(m.FACES, "family", where='label="synthetic"'), "{{family}}"),
            unit="ops",
            width=12,
        ),
        Panel(
            "Generators in the time range",
            "Faces called synthetic, by the family that they are attributed to.",
            (Query(f"sort_desc({_FAMILIES})", "{{family}}"),),
            look=Look.BARS,
            width=12,
            decimals=0,
        ),
        lines(
            "Faces by label",
            "Faces a second by label: several of a picture count each.",
            Query(rate(m.FACES, "label"), "{{label}}"),
            unit="ops",
        ),
        lines("Faces a picture", "How many faces a picture has.", *quantiles(m.PICTURE_FACES)),
        lines("Regions a picture", "How many manipulated regions a picture has.", *quantiles(m.PICTURE_REGIONS)),
    ),
)

_DRIFT = Row(
    "Drift",
    (
        Panel(
            "Scores",
            "How the detector's probabilities that a face is generated are spread. A new band in the middle is a generator "
            "that it half knows.",
            (Query(buckets(m.FACE_SCORE), "{{le}}"),),
            look=Look.HEATMAP,
            width=12,
        ),
        lines(
            "Population stability index",
            "How far the scores of six hours lie from those on the calibration photographs (where the detector's card states "
            "them) and from those of a week before. Below 0.1 nothing moved; above 0.25 it is another population.",
            Query("unmask:face_score:psi", "{{against}}, detector {{detector}}"),
            width=12,
            steps=Steps(orange=0.1, red=0.25),
        ),
        lines(
            "Strange faces",
            "Share of the faces that are stranger than 99 of 100 that the detector was calibrated on. One in a hundred is to "
            "be expected.",
            Query(above(m.FACE_DOUBT, "0.99", "detector"), "detector {{detector}}"),
            unit="percentunit",
            steps=Steps(orange=0.02, red=0.05),
        ),
        lines(
            "Doubt",
            "Quantiles of how strange faces are to the detector (0 to 1).",
            *quantiles(m.FACE_DOUBT, "detector"),
            most=1.0,
        ),
        lines(
            "Blur gap",
            "Difference of the scores of a face and of a slightly blurred copy. Ordinary pictures hardly move; ones that were "
            "made to fool the detector do.",
            *quantiles(m.DEFENCE_GAP, "detector"),
            steps=Steps(orange=0.2, red=0.3),
        ),
    ),
)

DETECTION = Dashboard(
    "detection",
    "Unmask / Detection",
    "What is found, of which generators, and whether something new is about.",
    (_GLANCE, _VERDICTS, _GENERATORS, _DRIFT),
    tenants=True,
)
