"""The gRPC edge of alignment."""

from __future__ import annotations

from typing import Final

import grpc

from unmask.core.domain import Stage
from unmask.core.errors import BadRequest, StoreCorrupt
from unmask.core.images import chips_of
from unmask.core.ports import ModelServer
from unmask.core.world import World
from unmask.rpc.chips import chip_to
from unmask.rpc.convert import FoundFace, found_face_to
from unmask.rpc.interceptors import Context, tenant
from unmask.rpc.serving import probe_model
from unmask.rpc.stored import faces_in, release_to, stored_at, subject_of
from unmask.rpc.work import Workers
from unmask.v1 import alignment_pb2 as pb
from unmask.v1 import alignment_pb2_grpc as pb_grpc


class AlignmentServer(pb_grpc.AlignmentServiceServicer):
    """Faces of a picture in hand, or of a stored case."""

    name: Final[str] = pb.DESCRIPTOR.services_by_name["AlignmentService"].full_name

    def __init__(self, world: World, models: ModelServer, workers: Workers) -> None:
        self._world, self._models, self._workers = world, models, workers

    def add_to(self, server: grpc.aio.Server) -> None:
        """See `unmask.rpc.serving.Service`."""
        pb_grpc.add_AlignmentServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]

    def probe(self) -> None:
        """See `unmask.rpc.serving.Service`."""
        probe_model(self._models, self._world.catalogue.active_release().model("face_detector"))

    async def Align(self, request: pb.AlignRequest, context: Context) -> pb.AlignResponse:
        """See alignment.proto."""
        owner = tenant()
        if subject_of(request) == "picture":
            return await self._workers.run(lambda: self._look(request))
        if request.with_chips:
            raise BadRequest("with_chips: chips are cut of a picture only, not of a stored case")
        return await self._workers.run(lambda: self._stored(owner, request.case_id))

    def _look(self, request: pb.AlignRequest) -> pb.AlignResponse:
        release = self._world.catalogue.active_release()
        picture, faces = faces_in(self._world, request.picture, release)
        chips = zip(chips_of(picture, faces), faces, strict=True) if request.with_chips else ()
        return pb.AlignResponse(
            faces=[found_face_to(FoundFace.of(face)) for face in faces],
            chips=[chip_to(chip, face.box) for chip, face in chips],
            width=picture.shape[1],
            height=picture.shape[0],
            release=release_to(release),
        )

    def _stored(self, owner: str, case_id: str) -> pb.AlignResponse:
        found = stored_at(self._world, owner, case_id, Stage.ALIGNED)
        picture = self._world.store.picture(owner, found.case.sha256)
        if picture is None:
            raise StoreCorrupt(f"case {case_id} is {found.case.stage}, but its picture has no row")
        return pb.AlignResponse(
            faces=[found_face_to(face) for face in found.faces],
            width=picture.width,
            height=picture.height,
            release=release_to(self._world.catalogue.release(found.case.release)),
        )
