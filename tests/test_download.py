"""tools/data/download.py, and the downloads of test.py, against a server that misbehaves."""
import hashlib
import http.server
import io
import os
import re
import socketserver
import sys
import threading
import zipfile

import test
from conftest import call
from model import drsan
from ops import tf
from tools.checkpoints import save_weights
from tools.command import UserError
from tools.data import download
from tools.files import file_digest, locked
from tools.runtime import open_session
from utils import download_command, downscale, find_dataset

import numpy as np
import pytest
from PIL import Image

HR = "psnrtest/HR/Set5/baby.png"
TARGET = "data/HR/Set5/baby.png"


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves server.files, {path: content}; server.faults, {path: [name, ...]}, come first, one a request."""

    def do_GET(self):
        path, body = self.path.lstrip("/"), self.server.files.get(self.path.lstrip("/"))
        self.server.requests.append((path, self.headers.get("Range")))
        start, faults = int((self.headers.get("Range") or "bytes=0-")[6:-1]), self.server.faults.get(path)
        fault = faults.pop(0) if faults else "missing" if body is None else ""
        status = {"busy": 503, "missing": 404, "wrong range": 206}.get(fault, 200)
        if fault == "closes at once":
            return
        if fault in ("busy", "missing"):
            body = b""
        elif fault in ("", "sends some"):
            status, body = 206 if start else 200, body[start:]
            if start and not body:
                status = 416
        self.send_response(status)
        if fault not in ("truncates", "sends without end"):
            self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", "bytes %d-" % (0 if fault == "wrong range" else start))
        self.end_headers()
        self.wfile.write({"closes half way": body[:len(body) // 2], "truncates": body[:-1],
                          "alters": b"?" + body[1:], "sends without end": body + bytes(1 << 20),
                          "stalls": body[:500], "sends some": body[:1200000]}.get(fault, body))
        if fault == "stalls":
            self.wfile.flush()
            self.server.over.wait(30)

    def log_message(self, *args):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass  # a client that gave up


@pytest.fixture
def server(monkeypatch):
    """A server of the files of a made-up Set5 with two images, which are what is download."""
    server = Server(("127.0.0.1", 0), Handler)
    server.url = "http://127.0.0.1:%d" % server.server_port
    server.files, server.faults, server.requests, server.over = {}, {}, [], threading.Event()
    random = np.random.RandomState(0)
    for name in "baby", "bird":
        hr = random.randint(0, 256, (60, 72, 3)).astype(np.uint8)
        server.files["psnrtest/HR/Set5/%s.png" % name] = png(hr)
        for scale in 2, 3, 4:
            server.files["psnrtest/x%d/Set5/%s.png" % (scale, name)] = png(downscale(hr, scale))
    monkeypatch.setattr(download, "read_manifest", lambda: {
        path: (hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), len(content))
        for path, content in sorted(server.files.items())})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path):
    """No waiting, and no proxy and no mirror from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, "BACKOFF", 0.001)
    for name in "http_proxy", "https_proxy", "all_proxy", "no_proxy", "DRSAN_MIRROR":
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run download.py with these arguments: (exit status, stdout, stderr)."""
    return lambda *arguments: call(monkeypatch, capsys, download.main, *arguments)


def set5(names=".*"):
    return [file for file in download.benchmark_files("Set5", "data") if re.search(names, file.path)]


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def check_data(server):
    """Assert that data/ holds exactly the server's images."""
    found = {os.path.join(folder, name) for folder, _, names in os.walk("data") for name in names}
    assert found - {"data/.lock"} == {path.replace("psnrtest", "data") for path in server.files}
    assert all(read(path.replace("psnrtest", "data")) == content for path, content in server.files.items())


def test_manifest():
    manifest = download.read_manifest()
    assert all(re.match("[0-9a-f]{40}$", blob) for blob, _ in manifest.values())
    sets = [download.benchmark_files(name, "data") for name in download.BENCHMARKS]
    assert [len(files) for files in sets] == [20, 56, 400, 400]
    assert list(map(download.megabytes, sets)) == pytest.approx([1.3, 7.312, 39.706, 196.626], abs=0.001)
    assert len(download.weight_files("data")) == 13 * 4 and len(manifest) == 876 + 52
    assert download.benchmark_files("Set5", "data", [3])[-1].target == "data/x3/Set5/woman.png"
    targets = [file.target for file in download.weight_files("data", "32l", "x2")]
    assert "data/authors-weights/x2/DRSAN_32l/DRSAN32l.index" in targets and len(targets) == 4
    assert download.weight_files("data", "32l", "x3") == []
    write("data/hello", b"hello\n")
    assert file_digest("data/hello", "git blob") == "ce013625030ba8dba906f756967f9e9ca394464a"
    with pytest.raises(UserError, match="no images of Set5.*: python .*/download.py Set5 --data-dir there$"):
        find_dataset("Set5", 2, "there")


def test_what_is_missing_is_downloaded_and_nothing_is_replaced(server, run):
    assert download.download(set5() + set5(), "data", server.url) == 8
    check_data(server)
    assert sorted(server.requests) == sorted((path, None) for path in server.files)
    del server.requests[:]
    assert download.download(set5(), "data", server.url) == 0 and not server.requests
    os.remove("data/x2/Set5/bird.png")
    write(TARGET, b"mine")
    status, _, err = run("Set5", "--mirror", server.url)
    assert status == 1 and "1 files in data are not as published and stay, the first is %s:" % TARGET in err
    assert server.requests == [("psnrtest/x2/Set5/bird.png", None)] and read(TARGET) == b"mine"
    os.remove(TARGET)
    with locked("data", "downloads into", "--data-dir"):
        status, _, err = run("Set5", "--mirror", server.url)
        assert status == 1 and "another process downloads into data: wait for it" in err
    status, out, _ = run("Set5", "--mirror", server.url)
    assert status == 0 and "complete and as published in data, 1 files downloaded" in out
    check_data(server)


@pytest.mark.parametrize("form", ["folder", "file URL", "environment"])
def test_mirrors(server, monkeypatch, run, tmp_path, form):
    mirror = tmp_path / "a mirror"
    for path, content in server.files.items():
        write(str(mirror / path), content)
    options = [] if form == "environment" else ["--mirror", mirror if form == "folder" else mirror.as_uri()]
    if form == "environment":
        monkeypatch.setenv("DRSAN_MIRROR", str(mirror))
    status, out, _ = run("Set5", *options)
    assert status == 0 and "Set5: complete and as published in data, 8 files downloaded" in out
    check_data(server)
    (mirror / HR).unlink()
    os.remove(TARGET)
    status, _, err = run("Set5", *options)
    assert status == 1 and re.match("error: cannot get file:///.*/baby.png: .*No such file.*\n$", err)


def test_proxy_is_used(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    server.files["http://images.invalid/" + HR] = server.files[HR]
    download.download(set5("HR.*baby"), "data", "http://images.invalid")
    assert server.requests == [("http://images.invalid/" + HR, None)]


@pytest.mark.parametrize("fault, text", [
    ("closes half way", "the connection closed after 6"), ("truncates", "is not the published content"),
    ("alters", "is not the published content"), ("stalls", "timed out"),
    ("sends without end", "is not the published content"),
    ("closes at once", "closed connection"), ("busy", "503"), ("missing", "404")])
def test_a_fault_is_tried_again_and_then_one_line(server, monkeypatch, run, fault, text):
    monkeypatch.setattr(download, "TIMEOUT", 0.3 if fault == "stalls" else 30)
    monkeypatch.setattr(download, "WORKERS", 1)
    server.faults[HR] = [fault] * 4
    status, _, err = run("Set5", "--mirror", server.url)
    line = r"error: cannot get %s/%s: .*%s.* \(4 attempts\); .*data/HR/Set5\n$" % (server.url, HR, text)
    assert status == 1 and re.match(line, err), err
    assert [path for path, _ in server.requests].count(HR) == 4 and not os.path.exists(TARGET)
    server.faults[HR] = [fault] * 3
    assert run("Set5", "--mirror", server.url)[0] == 0
    check_data(server)


def test_no_mirror_and_no_network_leave_no_folders(run):
    for mirror in "nowhere", "ftp://127.0.0.1":
        assert "error: the mirror %s is no folder" % mirror in run("Set5", "--mirror", mirror)[2]
    with socketserver.TCPServer(("127.0.0.1", 0), None) as closed:
        url = "http://127.0.0.1:%d" % closed.server_address[1]
    status, _, err = run("Set5", "--mirror", url)
    assert status == 1 and "Connection refused" in err and err.count("\n") == 1
    assert os.listdir("data") == [".lock"]


@pytest.mark.parametrize("kept, faults, requests", [
    (lambda body: body[:1000], [], 1),                        # of an interrupted run
    (lambda body: body[:1000], ["no range"], 1),
    (lambda body: body[:1000], ["wrong range"], 1),
    (lambda body: body, [], 1),                               # complete: there is no more to send
    (lambda body: b"?" + body[1:1000], [], 2),                # damaged: from the start again
    (lambda body: body + b"?", [], 2)])
def test_resumes_a_kept_part(server, kept, faults, requests):
    body = server.files[HR]
    write(TARGET + ".part", kept(body))
    server.faults[HR] = faults
    download.download(set5("HR.*baby"), "data", server.url)
    assert read(TARGET) == body and os.listdir("data/HR/Set5") == ["baby.png"]
    assert server.requests[0] == (HR, "bytes=%d-" % len(kept(body))) and len(server.requests) == requests


def test_attempts_count_anew_after_progress(server, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    body = server.files[HR] = np.random.RandomState(0).bytes(5 << 20)
    server.faults[HR] = ["sends some"] * 4
    download.download(set5("HR.*baby"), "data", server.url)
    assert len(server.requests) == 5 and read(TARGET) == body


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_full_disk(server, run):
    os.makedirs("data/HR/Set5")
    os.symlink("/dev/full", TARGET + ".part")
    status, _, err = run("Set5", "--mirror", server.url)
    assert (status, err) == (1, "error: cannot write %s.part: No space left on device\n" % TARGET)


@pytest.fixture
def div2k(server, monkeypatch):
    """The server has two archives of two images each; {path below data/DIV2K: content}."""
    contents, archives = {}, {}
    for name in "DIV2K_train_HR", "DIV2K_valid_HR":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name + "/", b"")
            for i in range(2):
                contents["%s/%04d.png" % (name, i)] = bytes([i]) * 3000 + np.random.RandomState(i).bytes(3000)
                archive.writestr("%s/%04d.png" % (name, i), contents["%s/%04d.png" % (name, i)])
        server.files[name + ".zip"] = body = file.getvalue()
        archives[name] = len(body), hashlib.sha256(body).hexdigest()
    monkeypatch.setattr(download, "DIV2K", archives)
    return contents


def test_div2k(server, run, div2k):
    server.faults["DIV2K_train_HR.zip"] = ["closes half way"]
    half = len(server.files["DIV2K_train_HR.zip"]) // 2
    for _ in range(2):
        status, out, err = run("DIV2K", "--yes", "--mirror", server.url)
        assert status == 0 and "DIV2K: complete in data/DIV2K" in out, err
        found = [os.path.join(folder, name) for folder, _, names in os.walk("data/DIV2K") for name in names]
        assert sorted(found) == sorted(os.path.join("data/DIV2K", path) for path in div2k)
        assert all(read(os.path.join("data/DIV2K", path)) == content for path, content in div2k.items())
        assert sorted(server.requests, key=str) == [("DIV2K_train_HR.zip", "bytes=%d-" % half), (
            "DIV2K_train_HR.zip", None), ("DIV2K_valid_HR.zip", None)]


def test_div2k_is_asked_for_and_verified(server, monkeypatch, run, div2k):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # no terminal
    status, out, err = run("DIV2K", "--mirror", server.url)
    assert status == 1 and "--yes says yes beforehand" in err and not server.requests
    assert "DIV2K_train_HR.zip DIV2K_valid_HR.zip from %s into data/DIV2K: 0.00 GB; the" % server.url in out
    server.files["DIV2K_train_HR.zip"] = server.files["DIV2K_train_HR.zip"][:-1] + b"?"
    status, _, err = run("DIV2K", "--yes", "--mirror", server.url)
    assert status == 1 and "is not the published content" in err and "put the files into data/DIV2K\n" in err
    write("data/DIV2K/DIV2K_train_HR.zip", b"mine")
    status, _, err = run("DIV2K", "--yes", "--mirror", server.url)
    assert status == 1 and "data/DIV2K/DIV2K_train_HR.zip is not the published archive: remove it" in err


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_offer(server, monkeypatch, capsys):
    write(TARGET, b"mine")
    for stdin in io.StringIO("y\n"), Terminal("n\n"), Terminal("\n"), Terminal(""):
        monkeypatch.setattr(sys, "stdin", stdin)
        download.offer(set5(), "data", server.url)
        assert not server.requests
    assert capsys.readouterr().out == 3 * (
        "Of 8 published files, 7 are missing in data. Download about %.3g MB from %s? [y/N] " % (
            download.megabytes(set5()[1:]), server.url))
    monkeypatch.setattr(sys, "stdin", Terminal("YES\n"))
    download.offer(set5(), "data", server.url)
    assert len(server.requests) == 7 and read(TARGET) == b"mine"
    download.offer(set5(), "data", "nowhere", yes=True)  # all are there: no mirror is needed


def publish_weights(server, folder, scale, name, seed):
    """Put random weights of 32s behind the server in the authors' layout; returns their folder."""
    folder = os.path.join(str(folder), scale)
    with tf.Graph().as_default():
        tf.set_random_seed(seed)
        drsan(tf.placeholder(tf.float32, [1, None, None, 3]), "32s", scale)
        with open_session([-1]) as session:
            session.run(tf.global_variables_initializer())
            prefix = save_weights(session, folder, "32s", scale)
    for suffix in ".index", ".data-00000-of-00001":
        server.files["ckpt/%s/DRSAN_32s/%s%s" % (scale, name, suffix)] = read(prefix + suffix)
    state = 'model_checkpoint_path: "/elsewhere/%s"\n' % name
    server.files["ckpt/%s/DRSAN_32s/checkpoint" % scale] = state.encode()
    return folder


def test_authors_weights_and_missing_images(server, monkeypatch, capsys, tmp_path, small_network):
    folders = {scale: publish_weights(server, tmp_path, scale, name, seed) for seed, scale, name in (
        (0, "x2", "DRSAN32s"), (1, "x3", "DRSAN32sx3"))}  # without a scale in the name, as that of 32l

    def evaluate(*arguments):
        return call(monkeypatch, capsys, test.main, "--gpu", -1, *arguments)

    authors = ["--checkpoint", "authors", "--model", "32s", "--scale", "x2", "x3", "--data-dir", "data"]
    status, out, err = evaluate(*authors)  # without a terminal and --download: what to do
    assert status == 1 and not server.requests and not os.path.exists("data")
    assert err.count("get them with: %s\n" % download_command("authors-weights", "data")) == 2
    authors += ["--mirror", server.url, "--csv", "authors.csv"]
    status, out, err = evaluate("--download", *authors)
    assert status == 0 and out.count("as published: 4 of 4 files") == 2, err
    assert "checkpoint       data/authors-weights/x2/DRSAN_32s/DRSAN32s\n" in out
    assert {path for path, _ in server.requests} == {path for path in server.files if "x4" not in path}
    assert evaluate("--scale", "x3", "--checkpoint", folders["x3"], "--csv", "own.csv")[0] == 0
    own, both = read("own.csv").splitlines(), read("authors.csv").splitlines()
    assert own[1:] == [row for row in both if b",x3," in row] and len(both) == 1 + 2 * 2 + 2
    write("data/authors-weights/x2/DRSAN_32s/DRSAN32s.data-00000-of-00001", b"?")
    assert "or not as published: get them with: " in evaluate("--checkpoint", "authors", "--model", "32s")[2]
    status, _, err = evaluate("--checkpoint", "authors", "--model", "32l", "--scale", "x3")
    assert status == 1 and "the authors publish no weights for 32l at x3\n" in err


def test_images_in_the_other_layout_are_used(server):
    """EDSR's: nothing is offered, and what is as published is counted."""
    for path, target in ("HR", "HR/%s.png"), ("x2", "LR_bicubic/X2/%sx2.png"):
        for name in "baby", "bird":
            write("data/Set5/" + target % name, server.files["psnrtest/%s/Set5/%s.png" % (path, name)])
    write("data/Set5/HR/bird.png", b"?")
    arguments = test.parse_args(["--download", "--mirror", server.url])
    test.offer_downloads(arguments, [("32s", "x2")])
    assert not server.requests
    assert download.count_published(find_dataset("Set5", 2, "data"), 2) == (3, 4)
