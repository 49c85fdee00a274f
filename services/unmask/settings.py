"""Settings: read once from the environment by bootstrap; an empty URL or path means "in this process"."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from unmask.core.errors import BadConfig

_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process is told from outside."""

    models: Path | None = None
    state: Path | None = None
    policy: Path | None = None
    threads: int = 0
    max_bytes: int = 20 * _MIB
    max_pixels: int = 50_000_000
    max_side: int = 20_000
    max_faces: int = 32
    fetch: bool = False

    @staticmethod
    def from_environment(environment: Mapping[str, str] | None = None) -> Settings:
        """Reads UNMASK_*; raises `BadConfig` naming the variable."""
        env = os.environ if environment is None else environment
        default = Settings()
        return Settings(
            models=_path(env, "UNMASK_MODELS"),
            state=_path(env, "UNMASK_STATE"),
            policy=_path(env, "UNMASK_POLICY"),
            threads=_whole(env, "UNMASK_THREADS", default.threads, 0),
            max_bytes=_whole(env, "UNMASK_MAX_BYTES", default.max_bytes, 1),
            max_pixels=_whole(env, "UNMASK_MAX_PIXELS", default.max_pixels, 1),
            max_side=_whole(env, "UNMASK_MAX_SIDE", default.max_side, 1),
            max_faces=_whole(env, "UNMASK_MAX_FACES", default.max_faces, 1),
            fetch=_flag(env, "UNMASK_FETCH", default.fetch),
        )


def _path(env: Mapping[str, str], name: str) -> Path | None:
    text = env.get(name, "")
    return Path(text) if text else None


def _whole(env: Mapping[str, str], name: str, default: int, least: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise BadConfig(f"{name}={text!r}: expected a whole number of at least {least}")
    return value


def _flag(env: Mapping[str, str], name: str, default: bool) -> bool:
    text = env.get(name, "").lower()
    if text not in {"", "0", "1", "false", "true"}:
        raise BadConfig(f"{name}={text!r}: expected 0 or 1")
    return default if not text else text in {"1", "true"}
