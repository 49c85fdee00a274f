"""The gRPC edge of classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import grpc

from unmask.classification.handler import classify_chips
from unmask.core.cards import Release
from unmask.core.domain import Classified, Stage
from unmask.core.ports import ModelServer
from unmask.core.world import World
from unmask.rpc.chips import chips_from
from unmask.rpc.convert import FoundFace, classified_to, found_face_to
from unmask.rpc.interceptors import Context, tenant
from unmask.rpc.serving import probe_model
from unmask.rpc.stored import faces_in, release_to, stored_at, subject_of
from unmask.rpc.work import Workers
from unmask.v1 import classification_pb2 as pb
from unmask.v1 import classification_pb2_grpc as pb_grpc


class ClassificationServer(pb_grpc.ClassificationServiceServicer):
    """How likely the faces of a picture, chips or a stored case are synthetic."""

    name: Final[str] = pb.DESCRIPTOR.services_by_name["ClassificationService"].full_name

    def __init__(self, world: World, models: ModelServer, workers: Workers) -> None:
        self._world, self._models, self._workers = world, models, workers

    def add_to(self, server: grpc.aio.Server) -> None:
        """See `unmask.rpc.serving.Service`."""
        pb_grpc.add_ClassificationServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]

    def probe(self) -> None:
        """See `unmask.rpc.serving.Service`; a picture as subject needs the face detector too."""
        release = self._world.catalogue.active_release()
        for role in ("face_detector", "detector"):
            probe_model(self._models, release.model(role))

    async def Classify(self, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
        """See classification.proto."""
        owner, kind = tenant(), subject_of(request)
        if kind == "case_id":
            return await self._workers.run(lambda: self._stored(owner, request.case_id))
        look = self._picture if kind == "picture" else self._chips
        return await self._workers.run(lambda: look(request, self._world.catalogue.active_release()))

    def _picture(self, request: pb.ClassifyRequest, release: Release) -> pb.ClassifyResponse:
        picture, faces = faces_in(self._world, request.picture, release)
        return _response(
            self._world.handlers.classify(picture, faces, release), [FoundFace.of(face) for face in faces], release
        )

    def _chips(self, request: pb.ClassifyRequest, release: Release) -> pb.ClassifyResponse:
        chips, _ = chips_from(request.chips.chips)
        return _response(classify_chips(chips, release, self._models), (), release)

    def _stored(self, owner: str, case_id: str) -> pb.ClassifyResponse:
        found = stored_at(self._world, owner, case_id, Stage.CLASSIFIED)
        return _response(found.classified, found.faces, self._world.catalogue.release(found.case.release))


def _response(found: Sequence[Classified], faces: Sequence[FoundFace], release: Release) -> pb.ClassifyResponse:
    return pb.ClassifyResponse(
        classifications=[classified_to(one) for one in found],
        faces=[found_face_to(face) for face in faces],
        release=release_to(release),
    )
