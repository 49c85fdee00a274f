"""The dashboard Models: what runs, what a release on trial says otherwise, what reviewers confirm, how Triton fares."""

from __future__ import annotations

from unmask.core import metrics as m
from unmask.core.domain import Label
from unmask_dashboards.panels import Dashboard, Look, Panel, Query, Row, Steps, lines, stack, stat
from unmask_dashboards.queries import growth, latest, quantiles, rate, share

_HIDDEN = ("Time", "Value", "__name__", "instance", "job")
_NAMES = "model, version"
_TRITON_QUEUE = (
    f"sum by ({_NAMES}) (rate(nv_inference_queue_duration_us[$__rate_interval]))"
    f" / (sum by ({_NAMES}) (rate(nv_inference_request_success[$__rate_interval])) > 0)"
)
# PromQL does not compare two labels of a series: each label by itself.
_ALIKE = " or ".join(f'increase({m.SHADOW_CASES.name}{{active="{label}", shadow="{label}"}}[$__range])' for label in Label)
_BOTH_JUDGED = growth(m.SHADOW_CASES, where='shadow!="failed"')
_OTHERWISE = f"1 - (sum({_ALIKE}) or vector(0)) / {_BOTH_JUDGED}"

_VERSIONS = Row(
    "Versions",
    (
        Panel(
            "Releases in use",
            "The release that judges new cases, and the one on trial beside it.",
            (Query(latest(m.RELEASE_INFO, "role", "release", "sha256", "detector")),),
            look=Look.TABLE,
            width=12,
            height=6,
            hidden=_HIDDEN,
        ),
        Panel(
            "Models in use",
            "The exact versions that these releases name.",
            (Query(latest(m.MODEL_INFO, "role", "model", "version", "sha256")),),
            look=Look.TABLE,
            width=12,
            height=6,
            hidden=_HIDDEN,
        ),
        stack(
            "Verdicts by detector",
            "Pictures a second by the version of the detector that judged them: open cases keep the release they came under.",
            Query(rate(m.VERDICTS, "detector"), "detector {{detector}}"),
            unit="ops",
            width=12,
        ),
        lines(
            "Scores against the calibration photographs",
            "Share of the faces of six hours in each tenth of the score (solid), and of the photographs that the detector was "
            "calibrated on (reference), where its card states them.",
            Query("unmask:face_score:share6h", "to {{bin}}"),
            Query(latest(m.REFERENCE_SHARE, "bin", where='truth="real"'), "reference to {{bin}}"),
            unit="percentunit",
            width=12,
        ),
    ),
)

_SHADOW = Row(
    "Release on trial",
    (
        stat(
            "Share on trial",
            "Share of the cases that the release on trial scores too.",
            latest(m.SHADOW_SHARE),
            unit="percentunit",
            width=8,
        ),
        stat(
            "Labelled otherwise",
            "Share of the cases that both releases judged, in the time range, with another label.",
            _OTHERWISE,
            unit="percentunit",
            width=8,
            steps=Steps(orange=0.02, red=0.1),
        ),
        stat(
            "Broke on",
            "Share of the cases that the release on trial could not judge, in the time range.",
            share(m.SHADOW_CASES, of='shadow="failed"', window="$__range"),
            unit="percentunit",
            width=8,
            steps=Steps(red=0.01),
        ),
        stack(
            "Cases by both labels",
            "Cases a second: the active release's label, then that of the release on trial.",
            Query(rate(m.SHADOW_CASES, "active", "shadow"), "{{active}} → {{shadow}}"),
            unit="ops",
            width=12,
        ),
        lines(
            "Difference of scores",
            "Absolute difference of the picture's scores by the active release and by the one on trial.",
            *quantiles(m.SHADOW_DIFFERENCE, "release"),
            width=12,
        ),
    ),
)

_REVIEWS = Row(
    "What reviewers say",
    (
        stat(
            "Precision",
            "Of the flagged pictures of thirty days that reviewers decided, the share that is fake. Reviewers see what the "
            "policy sends them: no fair sample of all pictures.",
            "unmask:reviewed:precision",
            unit="percentunit",
            steps=Steps(orange=0.9, red=0.8, falling=True),
        ),
        stat(
            "Recall on reviewed cases",
            "Of the fakes that reviewers found in thirty days, the share that was flagged. Fakes that passed and that nobody "
            "reported are not in it: it is an upper bound.",
            "unmask:reviewed:recall",
            unit="percentunit",
            steps=Steps(orange=0.9, red=0.8, falling=True),
        ),
        Panel(
            "Verdict and truth",
            "Cases of thirty days that reviewers decided, by the verdict's label and what they say it is.",
            (Query(latest(m.REVIEWED_CASES, "label", "truth")),),
            look=Look.TABLE,
            width=8,
            height=8,
            hidden=("Time", *_HIDDEN[2:]),
        ),
        lines(
            "Precision and recall",
            "Both over time; each over the cases of the thirty days before.",
            Query("unmask:reviewed:precision", "precision"),
            Query("unmask:reviewed:recall", "recall"),
            unit="percentunit",
            most=1.0,
        ),
    ),
)

_TRITON = Row(
    "Triton",
    (
        stack(
            "Inferences",
            "Faces or canvases a second that each model version is asked about.",
            Query(f"sum by ({_NAMES}) (rate(nv_inference_count[$__rate_interval]))", "{{model}}/{{version}}"),
            unit="ops",
        ),
        lines(
            "Batch size",
            "Inferences of one execution: what the dynamic batcher makes of single requests.",
            Query(
                f"sum by ({_NAMES}) (rate(nv_inference_count[$__rate_interval]))"
                f" / (sum by ({_NAMES}) (rate(nv_inference_exec_count[$__rate_interval])) > 0)",
                "{{model}}/{{version}}",
            ),
        ),
        lines(
            "Requests that fail",
            "Requests a second that Triton answers with an error.",
            Query(f"sum by ({_NAMES}) (rate(nv_inference_request_failure[$__rate_interval]))", "{{model}}/{{version}}"),
            unit="ops",
            steps=Steps(red=0.01),
        ),
        lines(
            "Time in the queue",
            "Mean time that a request waits for a batch and an instance.",
            Query(_TRITON_QUEUE, "{{model}}/{{version}}"),
            unit="µs",
        ),
        lines(
            "Time to compute",
            "Mean time that a request's batch takes in the model itself.",
            Query(_TRITON_QUEUE.replace("_queue_", "_compute_infer_"), "{{model}}/{{version}}"),
            unit="µs",
        ),
        lines(
            "GPU",
            "Share of the time that each GPU is busy.",
            Query("nv_gpu_utilization", "{{gpu_uuid}}"),
            unit="percentunit",
            most=1.0,
            production="Triton shows it where it has a GPU",
        ),
    ),
)

MODELS = Dashboard(
    "models",
    "Unmask / Models",
    "What runs, what a release on trial says otherwise, what reviewers confirm, and how Triton fares.",
    (_VERSIONS, _SHADOW, _REVIEWS, _TRITON),
)
