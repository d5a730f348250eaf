"""tools/data/download.py, the downloads of test.py and tools/paper/check_benchmarks.py, against a local server that misbehaves."""
import concurrent.futures
import csv
import hashlib
import http.server
import io
import os
import re
import shutil
import socketserver
import subprocess
import sys
import threading
import zipfile

import test
from conftest import ROOT, call
from model import drsan
from ops import tf
from tools.checkpoints import save_weights
from tools.command import UserError
from tools.data import download
from tools.paper import check_benchmarks
from tools.runtime import open_session
from utils import download_command, downscale, find_dataset

import numpy as np
import pytest
from PIL import Image

HR = "psnrtest/HR/Set5/baby.png"


def git_blob(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


# ---------------------------------------------------------------------------------------------------------- server

class Handler(http.server.BaseHTTPRequestHandler):
    """Serves server.files, {path: content}. server.faults, {path: [fault, ...]}, are used up first, one a request."""

    def do_GET(self):
        path = self.path.lstrip("/")
        self.server.requests.append((path, self.headers.get("Range")))
        faults = self.server.faults.get(path, [])
        fault = faults.pop(0) if faults else normal
        if path in self.server.files or fault is not normal:
            fault(self, self.server.files.get(path, b""))
        else:
            self.send_error(404)

    def begin(self, status, length=None, **headers):
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *args):
        pass


def normal(handler, body):
    match = re.match(r"bytes=(\d+)-$", handler.headers.get("Range", ""))
    if not match:
        return no_range(handler, body)
    start = int(match.group(1))
    if start >= len(body):
        return handler.begin(416, 0)
    handler.begin(206, len(body) - start, Content_Range="bytes %d-%d/%d" % (start, len(body) - 1, len(body)))
    handler.wfile.write(body[start:])


def no_range(handler, body):
    handler.begin(200, len(body))
    handler.wfile.write(body)


def closes_half_way(handler, body):
    handler.begin(200, len(body))
    handler.wfile.write(body[:len(body) // 2])


def truncates(handler, body):
    no_range(handler, body[:-1])


def truncates_without_length(handler, body):
    handler.begin(200)
    handler.wfile.write(body[:-1])


def alters(handler, body):
    no_range(handler, body[:100] + bytes([body[100] ^ 1]) + body[101:])


def sends_web_page(handler, body):
    no_range(handler, b"<!DOCTYPE html>\n<html><body>Please log in</body></html>")


def redirects_to_itself(handler, body):
    handler.begin(302, 0, Location=handler.path)


def stalls(handler, body):
    handler.begin(200, len(body))
    handler.wfile.write(body[:500])
    handler.wfile.flush()
    handler.server.over.wait(30)


def stalls_at_once(handler, body):
    handler.server.over.wait(30)


def drips(handler, body):
    handler.begin(200, len(body))
    for i in range(len(body)):
        handler.wfile.write(body[i:i + 1])
        handler.wfile.flush()
        if handler.server.over.wait(0.02):
            break


def announces_too_much(handler, body):
    handler.begin(200, 1 << 40)


def sends_too_much(handler, body):
    handler.begin(200)
    handler.wfile.write(bytes(1 << 18))


def closes_at_once(handler, body):
    pass


def answers_nonsense(handler, body):
    handler.wfile.write(b"\x16\x03\x01 nonsense\r\n\r\n")


def is_busy(handler, body):
    handler.begin(503, 0, Retry_After="0")


def limits_the_rate(handler, body):
    handler.begin(429, 0)


def is_missing(handler, body):
    handler.send_error(404)


def sends_wrong_range(handler, body):
    handler.begin(206, len(body), Content_Range="bytes 0-%d/%d" % (len(body) - 1, len(body)))
    handler.wfile.write(body)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass  # a client that gave up


@pytest.fixture
def server():
    """A server of the files of a made-up Set5 with two images."""
    server = Server(("127.0.0.1", 0), Handler)
    server.url = "http://127.0.0.1:%d" % server.server_port
    server.files, server.faults, server.requests, server.over = {}, {}, [], threading.Event()
    random = np.random.RandomState(0)
    for name in "baby", "bird":
        hr = random.randint(0, 256, (60, 72, 3)).astype(np.uint8)
        server.files["psnrtest/HR/Set5/%s.png" % name] = png(hr)
        for scale in 2, 3, 4:
            server.files["psnrtest/x%d/Set5/%s.png" % (scale, name)] = png(downscale(hr, scale))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path, request):
    """No waiting, no proxy and no mirror from outside, and a manifest of what the server has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, "BACKOFF", 0.001)
    for name in "http_proxy", "https_proxy", "all_proxy", "no_proxy", "DRSAN_MIRROR":
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    if "server" in request.fixturenames:
        files = request.getfixturevalue("server").files
        monkeypatch.setattr(download, "read_manifest", lambda: {path: git_blob(files[path]) for path in sorted(files)})


def set5(names=".*"):
    return [file for file in download.benchmark_files("Set5", "data") if re.search(names, file.path)]


def check_data(server):
    """Assert that data/ holds exactly the server's images."""
    found = {os.path.join(folder, name) for folder, _, names in os.walk("data") for name in names}
    found.remove(os.path.join("data", ".download.lock"))
    assert found == {path.replace("psnrtest", "data") for path in server.files}
    for path in found:
        with open(path, "rb") as file:
            assert file.read() == server.files[path.replace("data", "psnrtest", 1)]


# -------------------------------------------------------------------------------------------------------- manifest

def test_manifest():
    manifest = download.read_manifest()
    assert all(re.match("[0-9a-f]{40}$", blob) for blob in manifest.values())
    sizes = {name: len(download.benchmark_files(name, "data")) for name in download.BENCHMARKS}
    assert sizes == {"Set5": 20, "Set14": 56, "B100": 400, "Urban100": 400}
    weights = download.weight_files("data")
    assert len(weights) == 13 * 4 and len(manifest) == 876 + len(weights)
    assert download.benchmark_files("Set5", "data", [3])[-1].target == os.path.join("data", "x3", "Set5", "woman.png")
    files = download.weight_files("data", "32l", "x2")
    assert [os.path.relpath(file.target, "data") for file in files if file.path.endswith(".index")] == [
        os.path.join("authors-weights", "x2", "DRSAN_32l", "DRSAN32l.index")]
    assert download.weight_files("data", "32l", "x3") == []
    found = [download.megabytes(download.benchmark_files(name, "data")) for name in download.BENCHMARKS]
    assert found == pytest.approx([1.300, 7.312, 39.706, 196.626], abs=0.001)
    assert download.megabytes(files) == pytest.approx((12 * 849063 + 12 + 36098) / 1e6, abs=0.001)  # values with Adam's slots; index


def test_digests(tmp_path):
    path = tmp_path / "hello"
    path.write_bytes(b"hello\n")
    assert download.file_digest(str(path), "git blob") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert download.file_digest(str(path), "sha256").startswith("5891b5b522d5df08")


# --------------------------------------------------------------------------------------------- well-behaved server

def test_downloads_what_is_missing(server, monkeypatch, capsys):
    assert download.download(set5() + set5(), "data", server.url) == 8
    check_data(server)
    assert sorted(server.requests) == sorted((path, None) for path in server.files)
    del server.requests[:]
    assert download.download(set5(), "data", server.url) == 0 and not server.requests
    os.remove("data/x2/Set5/bird.png")
    with open("data/HR/Set5/baby.png", "wb") as file:
        file.write(b"mine")
    status, _, err = call(monkeypatch, capsys, download.main, "Set5", "--mirror", server.url)
    assert status == 1 and "Set5: 1 files in data are not as published and stay, the first is data/HR/Set5/baby.png: remove" in err
    assert server.requests == [("psnrtest/x2/Set5/bird.png", None)]
    with open("data/HR/Set5/baby.png", "rb") as file:
        assert file.read() == b"mine"
    os.remove("data/HR/Set5/baby.png")
    status, out, _ = call(monkeypatch, capsys, download.main, "Set5", "--mirror", server.url)
    assert status == 0 and "complete and as published in data, 1 files downloaded" in out
    check_data(server)


@pytest.mark.parametrize("form", ["folder", "file URL", "environment"])
def test_mirrors(server, monkeypatch, capsys, tmp_path, form):
    mirror = tmp_path / "a mirror"
    for path, content in server.files.items():
        (mirror / path).parent.mkdir(parents=True, exist_ok=True)
        (mirror / path).write_bytes(content)
    options = {"folder": ["--mirror", mirror], "file URL": ["--mirror", mirror.as_uri()], "environment": []}[form]
    if form == "environment":
        monkeypatch.setenv("DRSAN_MIRROR", str(mirror))
    status, out, err = call(monkeypatch, capsys, download.main, "Set5", *options)
    assert not status and "Set5: complete and as published in data, 8 files downloaded" in out
    check_data(server)
    (mirror / HR).unlink()
    os.remove("data/HR/Set5/baby.png")
    status, out, err = call(monkeypatch, capsys, download.main, "Set5", *options)
    assert status == 1 and re.match("error: cannot get file:///.*/baby.png: No such file or directory; .*\n$", err)


@pytest.mark.parametrize("mirror", ["nowhere", "ftp://127.0.0.1"])
def test_mirror_that_is_none(monkeypatch, capsys, mirror):
    status, _, err = call(monkeypatch, capsys, download.main, "Set5", "--mirror", mirror)
    assert status == 1 and re.match("error: the mirror %s is no folder.*\n$" % mirror, err)


def test_proxy_is_used(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    server.files["http://images.invalid/" + HR] = server.files[HR]
    download.download(set5("HR.*baby"), "data", "http://images.invalid")
    assert server.requests == [("http://images.invalid/" + HR, None)]


# ---------------------------------------------------------------------------------------------- misbehaving server

@pytest.mark.parametrize("fault", [
    closes_half_way, truncates, truncates_without_length, alters, sends_web_page, stalls, stalls_at_once,
    announces_too_much, sends_too_much, closes_at_once, answers_nonsense, is_busy, limits_the_rate])
def test_retry_succeeds(server, monkeypatch, fault):
    monkeypatch.setattr(download, "TIMEOUT", 1)
    monkeypatch.setattr(download, "MAX_FILE", 1 << 17)
    server.faults[HR] = [fault]
    assert download.download(set5(), "data", server.url) == 8
    check_data(server)
    assert [path for path, _ in server.requests].count(HR) == 2


@pytest.mark.parametrize("fault, attempts, text", [
    (closes_half_way, 3, "the connection closed after 6"),
    (truncates, 3, "is not the published content"),
    (alters, 3, "is not the published content"),
    (sends_web_page, 3, "a web page was sent"),
    (redirects_to_itself, None, "redirect"),
    (is_missing, 1, "404 Not Found"),
    (is_busy, 3, "503 Service Unavailable"),
    (stalls_at_once, 3, "timed out"),
    (stalls, 3, "timed out"),
    (drips, 3, "bytes came in 0 seconds"),
    (announces_too_much, 3, "1099511627776 bytes are offered, at most 131072 are expected"),
    (sends_too_much, 3, "more than the expected 131072 bytes are sent"),
    (closes_at_once, 3, "closed connection"),
])
def test_lasting_fault_is_one_clear_line(server, monkeypatch, capsys, fault, attempts, text):
    monkeypatch.setattr(download, "ATTEMPTS", 3)
    monkeypatch.setattr(download, "TIMEOUT", 0.3 if fault in (stalls, stalls_at_once, drips) else 30)
    monkeypatch.setattr(download, "MIN_RATE", 1e9 if fault == drips else 0)
    monkeypatch.setattr(download, "MAX_FILE", 1 << 17)
    monkeypatch.setattr(download, "WORKERS", 1)
    server.faults[HR] = [fault] * 20
    status, _, err = call(monkeypatch, capsys, download.main, "Set5", "--mirror", server.url)
    assert status == 1 and re.match("error: cannot get %s/%s: .*%s.*\n$" % (server.url, HR, text), err), err
    assert "HR/Set5 and x2/Set5" in err and "--mirror" in err
    assert not os.path.exists("data/HR/Set5/baby.png")
    if attempts:
        assert [path for path, _ in server.requests].count(HR) == attempts
    server.faults.clear()
    monkeypatch.setattr(download, "TIMEOUT", 30)
    status, out, _ = call(monkeypatch, capsys, download.main, "Set5", "--mirror", server.url)
    assert not status and "complete" in out
    check_data(server)


def test_no_network_leaves_no_folders(monkeypatch, capsys):
    with socketserver.TCPServer(("127.0.0.1", 0), None) as closed:
        url = "http://127.0.0.1:%d" % closed.server_address[1]
    status, _, err = call(monkeypatch, capsys, download.main, "Set5", "--mirror", url)
    assert status == 1 and "Connection refused (4 attempts)" in err and err.count("\n") == 1
    assert os.listdir("data") == [".download.lock"]


# --------------------------------------------------------------------------------------------------------- resuming

def test_resumes_where_the_connection_closed(server):
    server.faults[HR] = [closes_half_way]
    download.download(set5("HR.*baby"), "data", server.url)
    half = len(server.files[HR]) // 2
    assert server.requests == [(HR, None), (HR, "bytes=%d-" % half)]
    assert download.is_right("data/HR/Set5/baby.png", set5("HR.*baby")[0].digest)


@pytest.mark.parametrize("kept, faults, requests", [
    (lambda body: body[:1000], [], 1),                        # of an interrupted run
    (lambda body: body[:1000], [no_range], 1),
    (lambda body: body[:1000], [sends_wrong_range], 1),
    (lambda body: body, [], 1),                               # complete: there is no more to send
    (lambda body: b"?" + body[1:1000], [], 2),                # damaged: from the start again
    (lambda body: body + b"?", [], 2),
])
def test_resumes_a_kept_part(server, kept, faults, requests):
    body = server.files[HR]
    os.makedirs("data/HR/Set5")
    with open("data/HR/Set5/baby.png.part", "wb") as file:
        file.write(kept(body))
    server.faults[HR] = faults
    download.download(set5("HR.*baby"), "data", server.url)
    with open("data/HR/Set5/baby.png", "rb") as file:
        assert file.read() == body
    assert server.requests[0] == (HR, "bytes=%d-" % len(kept(body))) and len(server.requests) == requests
    assert os.listdir("data/HR/Set5") == ["baby.png"]


def test_attempts_count_anew_after_progress(server, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    body = server.files[HR] = np.random.RandomState(0).bytes(5 << 20)

    def sends_some(handler, body):
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        handler.begin(206 if start else 200, len(body) - start, Content_Range="bytes %d-" % start)
        handler.wfile.write(body[start:start + 1200000])

    server.faults[HR] = [sends_some] * 4
    download.download(set5("HR.*baby"), "data", server.url)
    assert len(server.requests) == 5 and download.file_digest("data/HR/Set5/baby.png", "git blob") == git_blob(body)


# --------------------------------------------------------------------------------------------- disk and two processes

@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_full_disk(server, monkeypatch, capsys):
    os.makedirs("data/HR/Set5")
    os.symlink("/dev/full", "data/HR/Set5/baby.png.part")
    status, _, err = call(monkeypatch, capsys, download.main, "Set5", "--mirror", server.url)
    assert status == 1
    assert err == "error: cannot write data/HR/Set5/baby.png.part: No space left on device\n"
    assert not os.path.exists("data/HR/Set5/baby.png")
    os.remove("data/HR/Set5/baby.png.part")
    download.download(set5(), "data", server.url)
    check_data(server)


def test_data_dir_that_is_a_file(server, monkeypatch, capsys):
    open("data", "w").close()
    status, _, err = call(monkeypatch, capsys, download.main, "Set5", "--mirror", server.url)
    assert status == 1 and re.match("error: cannot write and lock data: .*\n$", err)


def test_two_downloads_at_once(server, capsys):
    def waits(handler, body):
        handler.server.over.wait(0.3)
        normal(handler, body)

    server.faults[HR] = [waits]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:  # flock() keeps threads apart just as processes
        counts = list(pool.map(lambda _: download.download(set5(), "data", server.url), range(2)))
    assert sorted(counts) == [0, 8] and len(server.requests) == 8
    check_data(server)


# ------------------------------------------------------------------------------------------------------------ DIV2K

def make_div2k(server, monkeypatch, entries=(), images=2):
    """Make the server's two archives, with further (name, content) entries in the first; returns {path: content}."""
    random, contents, archives = np.random.RandomState(1), {}, {}
    for name in "DIV2K_train_HR", "DIV2K_valid_HR":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name + "/", b"")
            for i in range(images):
                contents["%s/%04d.png" % (name, i)] = random.bytes(3000)
                archive.writestr("%s/%04d.png" % (name, i), contents["%s/%04d.png" % (name, i)])
            for entry in entries:
                archive.writestr(*entry)
        server.files[name + ".zip"] = file.getvalue()
        archives[name] = (len(file.getvalue()), hashlib.sha256(file.getvalue()).hexdigest(), 2)
        entries = ()
    monkeypatch.setattr(download, "DIV2K", {name: download.Archive(*row) for name, row in archives.items()})
    return contents


def list_files(folder):
    return sorted(os.path.join(path, name) for path, _, names in os.walk(folder) for name in names)


def test_div2k(server, monkeypatch, capsys):
    contents = make_div2k(server, monkeypatch)
    server.faults["DIV2K_train_HR.zip"] = [closes_half_way]
    half = len(server.files["DIV2K_train_HR.zip"]) // 2
    for _ in range(2):
        status, out, _ = call(monkeypatch, capsys, download.main, "DIV2K", "--yes", "--mirror", server.url)
        assert not status and "complete" in out
        assert list_files("data/DIV2K") == sorted(os.path.join("data/DIV2K", path) for path in contents)
        for path, content in contents.items():
            with open(os.path.join("data/DIV2K", path), "rb") as file:
                assert file.read() == content
        assert server.requests == [("DIV2K_train_HR.zip", None), ("DIV2K_train_HR.zip", "bytes=%d-" % half),
                                   ("DIV2K_valid_HR.zip", None)]
    os.remove("data/DIV2K/DIV2K_train_HR/0000.png")
    status, _, err = call(monkeypatch, capsys, download.main, "DIV2K", "--yes", "--mirror", server.url)
    assert status == 1 and "DIV2K_train_HR has 1 images, not 2: remove the folder" in err


def test_div2k_is_asked_for(server, monkeypatch, capsys):
    make_div2k(server, monkeypatch)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # no terminal
    status, out, err = call(monkeypatch, capsys, download.main, "DIV2K", "--mirror", server.url)
    assert status == 1 and "--yes says yes beforehand" in err and not server.requests and not os.path.exists("data")
    assert "DIV2K_train_HR.zip (0.00 GB)" in out and "the disk needs" in out


@pytest.mark.parametrize("name", [
    "../evil.png", "/evil.png", "DIV2K_train_HR/../../evil.png", "DIV2K_train_HR/..\\evil.png",
    "DIV2K_train_HR/a/b.png", "DIV2K_train_HR/run.sh", "DIV2K_valid_HR/0000.png"])
def test_div2k_stays_in_its_folder(server, monkeypatch, name):
    make_div2k(server, monkeypatch, [(name, b"evil")])
    with pytest.raises(UserError, match="DIV2K_train_HR.zip holds .* nothing is unpacked"):
        download.download_div2k("data", server.url, yes=True)
    assert list_files(".") == ["./data/.download.lock", "./data/DIV2K/DIV2K_train_HR.zip"]


def test_div2k_altered_and_damaged(server, monkeypatch):
    make_div2k(server, monkeypatch)
    body = server.files["DIV2K_train_HR.zip"]
    at = body.index(b"0000.png") + 1000  # within the first image
    server.files["DIV2K_train_HR.zip"] = damaged = body[:at] + bytes([body[at] ^ 255]) + body[at + 1:]
    with pytest.raises(UserError, match="is not the published content.*--mirror, or put it into data/DIV2K"):
        download.download_div2k("data", server.url, yes=True)
    assert list_files("data/DIV2K") == []
    archive = download.DIV2K["DIV2K_train_HR"]._replace(sha256=hashlib.sha256(damaged).hexdigest())
    monkeypatch.setitem(download.DIV2K, "DIV2K_train_HR", archive)
    with pytest.raises(UserError, match="cannot unpack .*DIV2K_train_HR.zip: "):
        download.download_div2k("data", server.url, yes=True)
    assert list_files("data/DIV2K") == ["data/DIV2K/DIV2K_train_HR.zip"]


# ---------------------------------------------------------------------------------------------- questions and test.py

class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("typed, answer", [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_ask(monkeypatch, capsys, typed, answer):
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert download.ask("Download?") is answer
    assert capsys.readouterr().out.startswith("Download? [y/N] ")
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert download.ask("Download?") is False


def test_offer(server, monkeypatch, capsys):
    os.makedirs("data/HR/Set5")
    with open("data/HR/Set5/baby.png", "w") as file:
        file.write("mine")
    for stdin in io.StringIO("y\n"), Terminal("n\n"):
        monkeypatch.setattr(sys, "stdin", stdin)
        download.offer(set5(), "data", server.url)
        assert not server.requests
    assert capsys.readouterr().out == (
        "Of 8 published files, 7 are missing in data. Download about %.3g MB from %s? [y/N] " % (
            download.megabytes(set5()[1:]), server.url))
    assert download.megabytes(set5()) > 0.1
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    download.offer(set5(), "data", server.url)
    assert len(server.requests) == 7
    with open("data/HR/Set5/baby.png") as file:
        assert file.read() == "mine"  # --download is for what is missing
    os.remove("data/HR/Set5/baby.png")
    download.offer(set5(), "data", server.url, yes=True)
    check_data(server)
    download.offer(set5(), "data", "nowhere", yes=True)  # all there: no mirror is needed


def run_test(monkeypatch, capsys, *arguments):
    return call(monkeypatch, capsys, test.main, "--gpu", -1, *arguments)


def publish_weights(server, folder, model, scale, name, seed):
    """Put random weights behind the server in the authors' layout; returns their folder."""
    folder = os.path.join(str(folder), model + scale)
    with tf.Graph().as_default():
        tf.set_random_seed(seed)
        drsan(tf.placeholder(tf.float32, [1, None, None, 3]), model, scale)
        with open_session([-1]) as session:
            session.run(tf.global_variables_initializer())
            prefix = save_weights(session, folder, model, scale)
    for suffix in ".index", ".data-00000-of-00001":
        with open(prefix + suffix, "rb") as file:
            server.files["ckpt/%s/DRSAN_%s/%s%s" % (scale, model, name, suffix)] = file.read()
    state = 'model_checkpoint_path: "/elsewhere/%s"\n' % name
    server.files["ckpt/%s/DRSAN_%s/checkpoint" % (scale, model)] = state.encode()
    return folder


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_authors_weights_and_missing_images(server, monkeypatch, capsys, tmp_path):
    folders = {scale: publish_weights(server, tmp_path, "32s", scale, "DRSAN32s" + name, seed)
               for seed, (scale, name) in enumerate([("x2", ""), ("x3", "x3")])}  # no scale in the name, as that of 32l
    authors = ["--checkpoint", "authors", "--model", "32s", "--scale", "x2", "x3", "--data-dir", "data"]
    status, out, err = run_test(monkeypatch, capsys, *authors)  # without a terminal and --download: what to do
    assert status == 1 and not server.requests and not os.path.exists("data")
    assert err.count("get them with: %s\n" % download_command("authors-weights", "data")) == 2

    authors += ["--mirror", server.url, "--csv", "authors.csv"]
    status, out, err = run_test(monkeypatch, capsys, "--download", *authors)
    assert status == 0, err
    assert out.count("as published: 4 of 4 files") == 2
    assert "checkpoint       %s" % os.path.join("data", "authors-weights", "x2", "DRSAN_32s", "DRSAN32s\n") in out
    assert sorted(path for path, _ in server.requests) == sorted(path for path in server.files if "x4" not in path)
    rows = read_csv("authors.csv")
    assert len(rows) == 1 + 2 * 2 + 2
    own = ["--scale", "x3", "--checkpoint", folders["x3"], "--csv", "own.csv"]
    status, _, err = run_test(monkeypatch, capsys, *own)
    assert status == 0, err
    assert [row for row in rows if row[1] == "x3"] == read_csv("own.csv")[1:]

    with open("data/authors-weights/x2/DRSAN_32s/DRSAN32s.data-00000-of-00001", "r+b") as file:
        file.write(b"?")
    status, _, err = run_test(monkeypatch, capsys, "--checkpoint", "authors")
    assert status == 1 and "or not as published: get them with: " in err
    status, _, err = run_test(monkeypatch, capsys, "--checkpoint", "authors", "--model", "32l", "--scale", "x3")
    assert status == 1 and "the authors publish no weights for 32l at x3\n" in err


def test_missing_images_name_the_command():
    with pytest.raises(UserError, match="no images of Set5.*: python .*tools/data/download.py Set5 --data-dir there$"):
        find_dataset("Set5", 2, "there")


def test_images_in_the_other_layout_are_used(server, monkeypatch):
    for path, target in ("HR", "HR/%s.png"), ("x2", "LR_bicubic/X2/%sx2.png"):
        for name in "baby", "bird":
            target_path = os.path.join("data", "Set5", target % name)
            os.makedirs(os.path.dirname(target_path), exist_ok=True)
            with open(target_path, "wb") as file:
                file.write(server.files["psnrtest/%s/Set5/%s.png" % (path, name)])
    with open("data/Set5/HR/bird.png", "ab") as file:
        file.write(b"?")
    monkeypatch.setattr(sys, "argv", ["test.py", "--download", "--mirror", server.url])
    test.offer_downloads(test.parse_args(), [("32s", "x2")])
    assert not server.requests
    assert download.count_published(find_dataset("Set5", 2, "data"), 2) == (3, 4)


# ----------------------------------------------------------------------------------------------- commands of their own

def test_command_without_a_mirror():
    command = [sys.executable, os.path.join(ROOT, "tools", "data", "download.py"), "Set5", "--mirror", "nowhere"]
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.returncode == 1
    assert re.match(b"error: the mirror nowhere is no folder[^\n]*\n$", process.stderr)


def test_check_benchmarks(server, monkeypatch, capsys):
    download.download(set5(), "data", server.url)
    path = "data/x3/Set5/bird.png"
    lr = np.array(Image.open(path))
    lr[0, 0] = lr[0, 0] ^ 2  # three values of 2 x 20 x 24 x 3, by two levels
    Image.fromarray(lr).save(path)
    shutil.rmtree("data/x4")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        lines = [check_benchmarks.check(find_dataset("Set5", scale, "data"), scale, pool) for scale in (2, 3, 4)]
    assert re.match(r"Set5 +x2 +2 +4 of +4 +0\.00000 % +0 +\d+\.\d{3} / 0\.\d{4}$", lines[0])
    assert re.match(r"Set5 +x3 +2 +3 of +4 +0\.10417 % +2 ", lines[1])
    assert lines[2] is None

    def run():
        return call(monkeypatch, capsys, check_benchmarks.main, "--dataset", "Set5", "B100")[:2]

    status, out = run()
    assert status == 0 and "B100      x2 no images of B100" in out  # what is not there has not failed
    os.remove(path)
    status, out = run()
    assert status == 1 and "Set5      x3 data/HR/Set5/bird.png has no LR image data/x3/Set5/bird.png" in out
