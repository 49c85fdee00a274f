"""The gRPC edge of localization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import grpc

from unmask.core.cards import Release
from unmask.core.domain import Localized, Stage
from unmask.core.errors import BadRequest
from unmask.core.images import chips_of
from unmask.core.ports import ModelServer
from unmask.core.world import World
from unmask.localization.handler import localize_chips
from unmask.rpc.chips import chips_from
from unmask.rpc.convert import FoundFace, found_face_to, localized_to
from unmask.rpc.interceptors import Context, tenant
from unmask.rpc.serving import probe_model
from unmask.rpc.stored import faces_in, release_to, stored_at, subject_of
from unmask.rpc.work import Workers
from unmask.v1 import localization_pb2 as pb
from unmask.v1 import localization_pb2_grpc as pb_grpc


class LocalizationServer(pb_grpc.LocalizationServiceServicer):
    """Where the faces of a picture, chips or a stored case were manipulated."""

    name: Final[str] = pb.DESCRIPTOR.services_by_name["LocalizationService"].full_name

    def __init__(self, world: World, models: ModelServer, workers: Workers) -> None:
        self._world, self._models, self._workers = world, models, workers

    def add_to(self, server: grpc.aio.Server) -> None:
        """See `unmask.rpc.serving.Service`."""
        pb_grpc.add_LocalizationServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]

    def probe(self) -> None:
        """See `unmask.rpc.serving.Service`; a picture as subject needs the face detector too."""
        release = self._world.catalogue.active_release()
        for role in ("face_detector", "localizer"):
            probe_model(self._models, release.model(role))

    async def Localize(self, request: pb.LocalizeRequest, context: Context) -> pb.LocalizeResponse:
        """See localization.proto."""
        owner, kind = tenant(), subject_of(request)
        if kind == "case_id":
            if request.with_heat:
                raise BadRequest("with_heat: heat maps are not stored; send the picture or its chips")
            return await self._workers.run(lambda: self._stored(owner, request.case_id))
        look = self._picture if kind == "picture" else self._chips
        return await self._workers.run(lambda: look(request, self._world.catalogue.active_release()))

    def _picture(self, request: pb.LocalizeRequest, release: Release) -> pb.LocalizeResponse:
        picture, faces = faces_in(self._world, request.picture, release)
        boxes = [face.box for face in faces]
        found = localize_chips(chips_of(picture, faces), boxes, release, self._models, heat=request.with_heat)
        return _response(found, [FoundFace.of(face) for face in faces], release)

    def _chips(self, request: pb.LocalizeRequest, release: Release) -> pb.LocalizeResponse:
        chips, boxes = chips_from(request.chips.chips)
        return _response(localize_chips(chips, boxes, release, self._models, heat=request.with_heat), (), release)

    def _stored(self, owner: str, case_id: str) -> pb.LocalizeResponse:
        found = stored_at(self._world, owner, case_id, Stage.LOCALIZED)
        return _response(found.localized, found.faces, self._world.catalogue.release(found.case.release))


def _response(found: Sequence[Localized], faces: Sequence[FoundFace], release: Release) -> pb.LocalizeResponse:
    return pb.LocalizeResponse(
        localizations=[localized_to(one) for one in found],
        faces=[found_face_to(face) for face in faces],
        release=release_to(release),
    )
