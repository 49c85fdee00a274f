"""OpenTelemetry traces through gRPC and Celery, sent by OTLP; the SDK reads the standard OTEL_* variables by itself."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)


def start_tracing(service: str) -> None:
    """Instruments gRPC (server and client) and Celery in this process, and exports spans in the background.

    To be called where the work is done: in a Celery child after its fork, in a server before its first call.  Without the
    packages of unmask[service] nothing is traced, and the log says so.
    """
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.celery import CeleryInstrumentor
        from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorServer, GrpcInstrumentorClient
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        _log.warning("no traces: %s (install unmask[service])", error)
        return
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    for instrumentor in (CeleryInstrumentor(), GrpcAioInstrumentorServer(), GrpcInstrumentorClient()):
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument()
