"""An atlas that is put in the place of the one being served: answers are of it from then on, all of them."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from fastapi.testclient import TestClient

from backend.live.engine import LiveEngine
from backend.service import create_service
from backend.settings import Settings
from tests.conftest import TinyAtlas


def test_an_atlas_that_takes_anothers_place_is_the_one_served(tiny_atlas: TinyAtlas, tmp_path: Path) -> None:
    served, other = tmp_path / "a.db", tmp_path / "b.db"
    for path in (served, other):
        shutil.copy(tiny_atlas.path, path)
    with closing(sqlite3.connect(other)) as database:
        database.execute("UPDATE runs SET corpus = 'another text'")
        database.commit()
    engine = LiveEngine(tmp_path / "cache", device="cpu")
    with TestClient(create_service(Settings(atlas=str(served)), engine=engine)) as client:
        before = client.get(f"/api/v1/runs/{tiny_atlas.run}").json()
        assert before["corpus"] != "another text"
        os.replace(other, served)  # noqa: PTH105
        for _ in range(5):
            assert client.get(f"/api/v1/runs/{tiny_atlas.run}").json()["corpus"] == "another text"
        served.unlink()
        assert client.get(f"/api/v1/runs/{tiny_atlas.run}").status_code == 404
    engine.close()
