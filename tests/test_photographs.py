"""Photographs to train on: what is noted, what is left out, and what is an error."""
import hashlib
import io
import os

from tools import command
from tools.command import UserError
from tools.data import photographs
from tools.data.patches import Sampler, detail
from utils import read_image

import numpy as np
import pytest
import skimage.data
from PIL import Image

PICTURE = skimage.data.astronaut()[40:72, 180:204]


def save(path, image=PICTURE):
    Image.fromarray(image).save(str(path))
    return str(path)


def test_names_are_hashed_by_their_bytes(tmp_path):
    names = [u"\u65e5\u672c.png".encode("utf-8"), b"caf\xe9.png"]
    for name in names:
        save(os.fsdecode(os.path.join(os.fsencode(str(tmp_path)), name)))
    lines = [b"%s %d\n" % (name, os.path.getsize(os.path.join(os.fsencode(str(tmp_path)), name)))
             for name in sorted(names)]
    found = photographs.describe_data(str(tmp_path))["sha256_of_names_and_sizes"]
    assert found in [hashlib.sha256(b"".join(order)).hexdigest() for order in (lines, lines[::-1])]


def test_alpha_is_noted_once_a_run(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(command, "_noticed", set())
    data = None
    for name in "abcdefgh":
        path = save(tmp_path / (name + ".png"), np.dstack([PICTURE, PICTURE[:, :, :1]]))
        data = open(path, "rb").read()
    assert len(photographs.load_photographs(str(tmp_path), 2, 4, 2)) == 8
    assert (read_image(io.BytesIO(data), "i.png in a.tar") == PICTURE).all()
    err = [line for line in capfd.readouterr().err.splitlines() if "note" in line]
    note, where = err[0].split(" (first seen in ")
    assert len(err) == 1 and note == "note: the alpha channel is dropped" and where.startswith(str(tmp_path))
    monkeypatch.setattr(command, "_noticed", set())
    read_image(io.BytesIO(data), "i.png in a.tar")
    assert "(first seen in i.png in a.tar)" in capfd.readouterr().err


def test_photographs_that_are_all_too_small(tmp_path):
    for name in "a.png", "b.png":
        save(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"no image")
    with pytest.raises(UserError) as error:
        photographs.load_photographs(str(tmp_path), 2, 48, 1)
    assert str(error.value) == (
        "2 of the 3 photographs below %s are smaller than 96 pixels a side, and no other can be used: lower "
        "--patch (48 LR pixels at x2), or give larger ones" % tmp_path)


def test_patches_of_one_pixel_have_no_detail():
    assert detail(np.zeros((1, 1, 3), np.int16)) == 0
    assert detail(np.zeros((4, 1, 1, 3), np.int16)).tolist() == [0] * 4
    assert detail(np.int16([[[1], [4]]])) == 3
    with np.errstate(all="raise"):
        lr, hr = Sampler([(PICTURE[::2, ::2], PICTURE)], 2, 3, 1, 0, candidates=2)(0)
    assert lr.shape == (3, 1, 1, 3) and hr.shape == (3, 2, 2, 3)
