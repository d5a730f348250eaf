"""What training reads: photographs, patches and records."""
import hashlib
import io
import os
import re
import shutil

import utils
from conftest import authors_record
from tools import command
from tools.command import UserError
from tools.data.patches import Sampler, detail
from tools.data.photographs import describe_data, hold_out, list_photographs, load_photographs, open_valid
from tools.data.records import RecordSampler, write_records
from tools.files import short_path

import numpy as np
import pytest
import skimage.data
from PIL import Image

PICTURE = skimage.data.astronaut()[40:72, 180:204]


def save(path, image=PICTURE):
    Image.fromarray(image).save(str(path))


# patches

@pytest.mark.parametrize("scale", [2, 3, 4])
def test_patches_are_aligned_and_augmented(photographs, scale):
    pairs = load_photographs(str(photographs), scale, 12, 1)
    assert [hr.shape for _, hr in pairs] == [(121 - 121 % scale, 142 - 142 % scale, 3)] * 2
    sampler = Sampler(pairs, scale, 40, 12, seed=1)
    lr, hr = sampler(0)
    assert lr.shape == (40, 12, 12, 3) and hr.shape == (40, 12 * scale, 12 * scale, 3)
    orientations = set()
    for low, high in zip(lr, hr):
        # inside, where imresize does not see the patch's border, LR is HR downscaled
        assert (utils.downscale(high, scale)[3:-3, 3:-3] == low[3:-3, 3:-3]).all()
        found = [(k, mirror) for k in range(4) for mirror in (False, True) if any(
            contains(image, np.rot90(low[:, ::-1] if mirror else low, -k)) for image, _ in pairs)]
        assert len(found) == 1
        orientations.update(found)
    assert len(orientations) == 8
    again = Sampler(pairs, scale, 40, 12, seed=1)(0)
    assert (again[0] == lr).all() and (again[1] == hr).all()
    assert (sampler(1)[0] != lr).any() and (Sampler(pairs, scale, 40, 12, seed=2)(0)[0] != lr).any()


def contains(image, patch):
    """Whether the patch stands somewhere in the image."""
    size = len(patch)
    corners = (image[:1 - size, :1 - size] == patch[0, 0]).all(axis=2)
    return any((image[y:y + size, x:x + size] == patch).all() for y, x in zip(*np.nonzero(corners)))


def test_the_most_detailed_candidate_is_taken(monkeypatch):
    random = np.random.RandomState(0)
    low = (random.rand(40, 50, 3) * np.linspace(0, 255, 50)[:, None]).astype(np.uint8)  # right: more detail
    pairs = [(low, np.repeat(np.repeat(low, 2, 0), 2, 1))]
    sampler, drawn = Sampler(pairs, 2, 3, 8, seed=1, candidates=4), []
    draw = sampler._draw
    monkeypatch.setattr(sampler, "_draw", lambda random: drawn.append(draw(random)) or drawn[-1])
    lr, hr = sampler(0)
    assert len(drawn) == 12 and (hr[:, ::2, ::2] == lr).all()

    def variation(position):
        patch = low[position.y:position.y + 8, position.x:position.x + 8].astype(float)
        return np.abs(patch[1:] - patch[:-1]).mean() + np.abs(patch[:, 1:] - patch[:, :-1]).mean()

    for i in range(3):
        _, _, y, x = max(drawn[4 * i:4 * i + 4], key=variation)
        assert sorted(lr[i].ravel()) == sorted(low[y:y + 8, x:x + 8].ravel())


def test_patches_of_one_pixel_have_no_detail():
    assert detail(np.zeros((4, 1, 1, 3), np.int16)).tolist() == [0] * 4
    assert detail(np.int16([[[1], [4]]])) == 3
    with np.errstate(all="raise"):
        lr, hr = Sampler([(PICTURE[::2, ::2], PICTURE)], 2, 3, 1, 0, candidates=2)(0)
    assert lr.shape == (3, 1, 1, 3) and hr.shape == (3, 2, 2, 3)


def test_a_share_of_the_patches_are_textures_with_bicubic_hr():
    lr, hr = Sampler([(PICTURE[::2, ::2], PICTURE)], 2, 40, 8, 0, textures=0.5)(0)
    hard = [(utils.bicubic(low, 2) == high).all() for low, high in zip(lr, hr)]
    assert 10 < sum(hard) < 30


# photographs

def test_names_are_hashed_by_their_bytes(tmp_path):
    names = [u"\u65e5\u672c.png".encode("utf-8"), b"caf\xe9.png"]
    paths = [os.path.join(os.fsencode(str(tmp_path)), name) for name in names]
    for path in paths:
        save(os.fsdecode(path))
    os.symlink("nowhere", str(tmp_path / "gone.png"))  # is not counted
    lines = [b"%s %d\n" % (name, os.path.getsize(path)) for name, path in zip(names, paths)]
    found = describe_data(str(tmp_path))
    assert found["files"] == 2 and found["sha256_of_names_and_sizes"] in [
        hashlib.sha256(b"".join(order)).hexdigest() for order in (lines, lines[::-1])]


def test_alpha_is_noted_once_a_run(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(command, "_noticed", set())
    for name in "abcdefgh":
        save(tmp_path / (name + ".png"), np.dstack([PICTURE, PICTURE[:, :, :1]]))
    assert len(load_photographs(str(tmp_path), 2, 4, 2)) == 8
    data = io.BytesIO((tmp_path / "a.png").read_bytes())
    assert (utils.read_image(data, "i.png in a.tar") == PICTURE).all()
    err = [line for line in capfd.readouterr().err.splitlines() if "note" in line]
    assert len(err) == 1 and "the alpha channel is dropped (first seen in %s" % tmp_path in err[0]


def test_bad_photographs_are_named(photographs, tmp_path, capsys):
    (photographs / "broken.jpg").write_bytes(b"nothing")
    os.symlink(str(tmp_path / "annex"), str(photographs / "link.png"))  # as git-annex leaves them
    for name, side in ("small", 30), ("dot", 1):
        Image.new("RGB", (side, side)).save(str(photographs / (name + ".png")))
    assert len(load_photographs(str(photographs), 2, 16, 1)) == 2
    left_out = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 4
    for name, reason in (("broken.jpg", "cannot read the image"), ("link.png", "cannot read the image"), (
            "small.png", "is smaller than a patch of 16 LR pixels"), ("dot.png", "is smaller than 2 pixels")):
        assert any(name in line and reason in line for line in left_out), name
    (tmp_path / "bad").mkdir()
    for message in "no training data below", "no usable photograph below .*: give --data", (
            "no usable photograph below .*: 1 of 2 are smaller than 96 pixels a side: lower --patch"):
        with pytest.raises(UserError, match=message):
            load_photographs(str(tmp_path / "bad"), 2, 48, 1)
        name = "small.png" if (tmp_path / "bad" / "broken.jpg").exists() else "broken.jpg"
        shutil.copy(str(photographs / name), str(tmp_path / "bad"))


def test_links_to_folders_are_followed_once(photographs, tmp_path):
    """A link out of the folder, one to a folder that is there anyway, and one that leads back up."""
    (tmp_path / "elsewhere" / "below").mkdir(parents=True)
    shutil.copy(list_photographs(str(photographs))[0], str(tmp_path / "elsewhere" / "below" / "c.png"))
    names = [os.path.relpath(path, str(photographs)) for path in list_photographs(str(photographs))]
    for link, target in (("a_link", photographs / "deeper"), ("deeper/loop", photographs), (
            "more", tmp_path / "elsewhere"), ("more_again", tmp_path / "elsewhere" / "below"), (
            "broken", tmp_path / "nowhere")):
        os.symlink(str(target), str(photographs / link))
    assert [os.path.relpath(path, str(photographs)) for path in list_photographs(str(photographs))] == sorted(
        names + [os.path.join("more", "below", "c.png")])
    os.symlink(str(photographs), str(tmp_path / "photos"))
    assert len(list_photographs(str(tmp_path / "photos"))) == 3


@pytest.mark.parametrize("folder, noted", [
    ("LR", True), ("LR_bicubic/X2", True), ("x4", True), ("DIV2K_train_LR_bicubic", True), ("HR", False),
    ("LRoom", False), ("x20", False)])
def test_folders_of_lr_are_noted(photographs, capsys, monkeypatch, folder, noted):
    monkeypatch.setattr(command, "_noticed", set())
    (photographs / folder).mkdir(parents=True)
    shutil.copy(list_photographs(str(photographs))[0], str(photographs / folder))
    assert len(load_photographs(str(photographs), 2, 16, 1)) == 3
    assert ("name the folder of HR images by --data" in capsys.readouterr().err) == noted


@pytest.mark.parametrize("scale, side", [(2, 16), (3, 18), (4, 20)])
def test_images_too_small_to_validate_on(tmp_path, capsys, scale, side):
    """Of a data set they are an error that names the file and its size; held out, they are left out as in
    training."""
    (tmp_path / "valid").mkdir()
    fits, small = str(tmp_path / "valid" / "fits.png"), str(tmp_path / "small.png")
    Image.new("RGB", (side, side + 5), "red").save(fits)
    Image.new("RGB", (side + 9, side - 1), "red").save(small)
    message = "%s has %dx%d pixels: at x%d, an image of at least %d a side is needed" % (
        small, side + 9, side - 1, scale, side)
    with pytest.raises(UserError, match=re.escape(message.replace(small, short_path(small)))):
        open_valid(str(tmp_path), [], scale, "")
    sets = open_valid(str(tmp_path / "valid"), [fits, small], scale, "")
    assert [(key, name, len(pairs)) for key, (name, pairs) in sets.items()] == [
        ("psnr", str(tmp_path / "valid"), 1), ("psnr_held_out", "held-out photographs", 1)]
    assert "left out: " + message in capsys.readouterr().out
    with pytest.raises(UserError, match="none of the 1 photographs that --valid-share holds out can be"):
        open_valid(str(tmp_path / "valid"), [small], scale, "")


def test_held_out_photographs(tmp_path):
    """Chosen by a hash of the name: the same ones in any order and anywhere; of tiles, all or none of a
    photograph."""
    folder = tmp_path / "a"
    folder.mkdir()
    for i in range(400):
        (folder / ("%03d.png" % i)).write_bytes(b"")
    kept, held = hold_out(str(folder), 0.1)
    assert len(kept) + len(held) == 400 and 25 <= len(held) <= 60 and not set(kept) & set(held)
    first = os.path.join(str(folder), "000")
    digest = int(hashlib.sha256(b"000").hexdigest()[:8], 16) / 16 ** 8
    shares = digest - 1e-9, digest + 1e-9
    assert [first + ".png" in hold_out(str(folder), share)[1] for share in shares] == [False, True]
    assert hold_out(str(folder), 0) == (sorted(kept + held), [])
    (folder / "000.png").unlink()
    assert set(hold_out(str(folder), 0.1)[1]) == set(held) - {first + ".png"}
    rows = ["%03d.png,someone/photos,%d.jpg" % (i, i // 8) for i in range(1, 400)]
    (folder / "manifest.csv").write_text("\n".join(["file,repo,path"] + rows))
    kept, held = hold_out(str(folder), 0.1)
    photograph = {str(folder / row.split(",")[0]): row.split(",")[2] for row in rows}
    photographs = {photograph[path] for path in held}
    assert len(held) == len(photographs) and not photographs & {photograph[path] for path in kept}
    assert len(kept) == 399 - sum(name in photographs for name in photograph.values())
    for path in held:  # the tile in the middle
        tiles = sorted(tile for tile in photograph if photograph[tile] == photograph[path])
        assert path == tiles[len(tiles) // 2]
    with pytest.raises(UserError, match="--valid-share 1e-06 holds out 0 of the 50 photographs below"):
        hold_out(str(folder), 1e-6)
    (folder / "manifest.csv").write_text("file,size\n001.png,3")
    with pytest.raises(UserError, match="manifest.csv is not the manifest of a photo set"):
        hold_out(str(folder), 0.1)


# records

def test_authors_records_are_read_once_an_epoch_in_changing_order(tmp_path):
    path = tmp_path / "train_SR_aug_X3_10.tfrecord"
    pairs = authors_record(path, 3, 8, 10)
    sampler = RecordSampler(str(tmp_path), 3, 5, 8, seed=0)

    def epoch(first):
        order = []
        for lr, hr in sampler(first), sampler(first + 1):
            for low, high in zip(lr, hr):
                order += [i for i, pair in enumerate(pairs)
                          if (pair[0] == low).all() and (pair[1] == high).all()]
        return order

    assert sorted(epoch(0)) == sorted(epoch(2)) == list(range(10))
    assert epoch(0) != epoch(2) and epoch(0) == epoch(0)
    with pytest.raises(UserError, match="is no pair of 8x8 and 16x16 patches"):
        RecordSampler(str(tmp_path), 2, 5, 8, seed=0)
    data = path.read_bytes()
    for damaged in data[:-5], data[:3]:
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="does not consist of records of one size"):
            RecordSampler(str(tmp_path), 3, 5, 8, seed=0)


def test_records_are_written_once_and_continued(photographs, tmp_path):
    sampler = Sampler(load_photographs(str(photographs), 2, 12, 1), 2, 4, 12, seed=0)
    folder = tmp_path / "records"
    folder.mkdir()
    write_records(sampler, str(folder), 10, 3)
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(content) == ["train_SR_aug_X2_10-%05d-of-00003.tfrecord" % i for i in range(3)]
    written = [sampler(i, size) for i, size in enumerate((3, 3, 4))]
    for ours, expected in zip(RecordSampler(str(folder), 2, 10, 12, seed=0)(0), zip(*written)):
        assert sorted(image.tobytes() for image in ours) == sorted(
            image.tobytes() for image in np.concatenate(expected))
    (folder / "train_SR_aug_X2_10-00001-of-00003.tfrecord").unlink()
    (folder / "train_SR_aug_X2_10-00001-of-00003.tfrecord.0123abcd.tmp").write_bytes(b"half")  # after a kill
    write_records(sampler, str(folder), 10, 3)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content
