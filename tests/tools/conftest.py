import pytest

from tests.tools.apis import Apis, serve
from tests.tools.toy import make_project


@pytest.fixture
def project(tmp_path, monkeypatch, capsys):
    """The toy project as the current folder."""
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path


@pytest.fixture
def apis(project, monkeypatch):
    """The toy project, and the APIs on this machine; pauses are short."""
    known = Apis()
    server = serve(known)
    monkeypatch.setenv("ATLAS_LOOKUP", known.base)
    monkeypatch.setattr("tools.lookup.http.GAP", 0.0)
    monkeypatch.setattr("tools.lookup.http.PAUSE", 0.01)
    yield known
    server.shutdown()
    server.server_close()
