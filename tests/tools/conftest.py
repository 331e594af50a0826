import pytest

from tests.tools.toy import make_project


@pytest.fixture
def project(tmp_path, monkeypatch, capsys):
    """The toy project as the current folder."""
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path
