"""Traces: one trace from the caller's submission through the broker to the worker's step, received by a real OTLP server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as pb_grpc

from tests.system.command import environment

# Publishes one hint inside a span, then works it as a worker would, both with tracing on.
_PROGRAM = """
import sys, threading
from celery.contrib.testing.worker import start_worker
from celery.signals import task_postrun
from opentelemetry import trace
from unmask.adapters.celery_worker import add_task
from unmask.adapters.queue_celery import CeleryQueue
from unmask.adapters.tracing import start_tracing
from unmask.core.domain import Message, Step

start_tracing("unmask-test")
queue, worked = CeleryQueue(sys.argv[1]), threading.Event()
for step in Step:
    add_task(queue.app, step, lambda message, redelivered: None)
# Connected after the tracer, so called after it: leaving the worker below waits for no task, and the step's span ends here.
task_postrun.connect(lambda **_: worked.set(), weak=False)
queue.app.set_current()
with start_worker(queue.app, pool="threads", concurrency=1, perform_ping_check=False, shutdown_timeout=20):
    with trace.get_tracer("test").start_as_current_span("submission"):
        queue.publish(Message("acme", "one", Step.ALIGN))
    assert worked.wait(20)
trace.get_tracer_provider().shutdown()
"""


class Collector(pb_grpc.TraceServiceServicer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, str]] = []
        self.lock = threading.Lock()

    def Export(self, request: pb.ExportTraceServiceRequest, context: grpc.ServicerContext) -> pb.ExportTraceServiceResponse:
        """See opentelemetry/proto/collector/trace/v1."""
        with self.lock:
            for resource in request.resource_spans:
                service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
                spans = [span for scope in resource.scope_spans for span in scope.spans]
                self.spans += [(service, span.name, span.trace_id.hex()) for span in spans]
        return pb.ExportTraceServiceResponse()


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    server, kept = grpc.server(ThreadPoolExecutor(2)), Collector()
    pb_grpc.add_TraceServiceServicer_to_server(kept, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield kept, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_message_carries_its_trace_through_the_broker(collector: tuple[Collector, str], valkey_url: str) -> None:
    kept, endpoint = collector
    told = environment(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_INSECURE="true")
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, valkey_url], env=told, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    by_name = {name: trace_id for _, name, trace_id in kept.spans}
    assert {service for service, *_ in kept.spans} == {"unmask-test"}, json.dumps(kept.spans)
    assert by_name["submission"] == by_name["apply_async/unmask.align"] == by_name["run/unmask.align"]
