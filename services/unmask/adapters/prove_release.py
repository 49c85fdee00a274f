"""Proves a release before anything points to it: cards, files, graphs, and an answer from every model."""

from __future__ import annotations

from unmask.adapters.model_repository import ModelRepository
from unmask.core.cards import Release
from unmask.core.errors import BadModel, Unavailable
from unmask.core.ports import ModelControl, ModelServer
from unmask.rpc.serving import probe_model


def prove(release: Release, repository: ModelRepository, models: ModelServer) -> None:
    """Raises `BadModel` unless every version is in the repository as its card says, loads, and answers a probe.

    `Unavailable` when the model server does not answer: nothing is known of the release then.
    """
    on_disk = ModelRepository(repository.root)  # which may have changed since cards were first read
    for ref in release.models.values():
        try:
            for name in on_disk.card(ref).files:
                on_disk.file(ref, name)
            if isinstance(models, ModelControl):
                models.load(ref)
            probe_model(models, ref)
        except BadModel as error:
            raise BadModel(f"release {release.name} is refused: {error.detail}") from error
        except Unavailable as error:
            raise Unavailable(f"release {release.name} could not be tried: {error.detail}") from error
