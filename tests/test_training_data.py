"""What training reads: photographs, patches and records."""
import os
import shutil

import utils
from conftest import authors_record
from tools import command
from tools.command import UserError
from tools.data.patches import Sampler
from tools.data.photographs import hold_out, list_photographs, load_photographs, open_valid
from tools.data.records import RecordSampler, write_records

import numpy as np
import pytest
from PIL import Image


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


def test_the_most_detailed_candidate_is_taken(monkeypatch):
    random = np.random.RandomState(0)
    low = (random.rand(40, 50, 3) * np.linspace(0, 255, 50)[:, None]).astype(np.uint8)  # right: more detail
    pairs = [(low, np.repeat(np.repeat(low, 2, 0), 2, 1))]
    sampler, drawn = Sampler(pairs, 2, 3, 8, seed=1, candidates=4), []
    draw = sampler._draw
    monkeypatch.setattr(sampler, "_draw", lambda random: drawn.append(draw(random)) or drawn[-1])
    lr, hr = sampler(0)
    assert len(drawn) == 12 and (hr[:, ::2, ::2] == lr).all()

    def variation(y, x):
        patch = low[y:y + 8, x:x + 8].astype(float)
        return np.abs(patch[1:] - patch[:-1]).mean() + np.abs(patch[:, 1:] - patch[:, :-1]).mean()

    for i in range(3):
        _, _, y, x = max(drawn[4 * i:4 * i + 4], key=lambda one: variation(*one[2:]))
        assert sorted(lr[i].ravel()) == sorted(low[y:y + 8, x:x + 8].ravel())


def contains(image, patch):
    """Whether the patch stands somewhere in the image."""
    size = len(patch)
    corners = (image[:1 - size, :1 - size] == patch[0, 0]).all(axis=2)
    return any((image[y:y + size, x:x + size] == patch).all() for y, x in zip(*np.nonzero(corners)))


def test_bad_photographs_are_named(photographs, tmp_path, capsys):
    (photographs / "broken.jpg").write_bytes(b"nothing")
    Image.new("RGB", (30, 30)).save(str(photographs / "small.png"))
    Image.new("RGB", (1, 1)).save(str(photographs / "dot.png"))
    assert len(load_photographs(str(photographs), 2, 16, 1)) == 2
    out = capsys.readouterr().out
    assert "left out: cannot read the image" in out and "broken.jpg" in out
    assert "small.png is smaller than a patch of 16 LR pixels" in out
    assert "dot.png is smaller than 2 pixels" in out
    (tmp_path / "bad").mkdir()
    with pytest.raises(UserError, match="no training data below"):
        load_photographs(str(tmp_path / "bad"), 2, 16, 1)
    shutil.copy(str(photographs / "broken.jpg"), str(tmp_path / "bad"))
    with pytest.raises(UserError, match="no usable photograph below"):
        load_photographs(str(tmp_path / "bad"), 2, 16, 1)


def test_links_to_folders_are_followed_once(photographs, tmp_path):
    """A link out of the folder, one to a folder that is there anyway, and one that leads back up."""
    (tmp_path / "elsewhere" / "below").mkdir(parents=True)
    shutil.copy(list_photographs(str(photographs))[0], str(tmp_path / "elsewhere" / "below" / "c.png"))
    names = [os.path.relpath(path, str(photographs)) for path in list_photographs(str(photographs))]
    os.symlink(str(photographs / "deeper"), str(photographs / "a_link"))
    os.symlink(str(photographs), str(photographs / "deeper" / "loop"))
    os.symlink(str(tmp_path / "elsewhere"), str(photographs / "more"))
    os.symlink(str(tmp_path / "elsewhere" / "below"), str(photographs / "more_again"))
    os.symlink(str(tmp_path / "nowhere"), str(photographs / "broken"))
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


def test_links_to_pictures_that_are_not_there_are_counted(photographs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "_noticed", set())
    for name in "deeper/b.jpg", "a.png", "c.txt":
        os.symlink(str(tmp_path / "annex"), str(photographs / name))
    assert len(load_photographs(str(photographs), 2, 16, 1)) == 2
    links = "2 links to pictures that are not there, the first %s: fetch them" % (photographs / "a.png")
    assert "note: left out: %s (git annex get, dvc pull)\n" % links in capsys.readouterr().err
    for path in list_photographs(str(photographs)):
        os.remove(path)
    with pytest.raises(UserError, match="no training data below .*, but there are %s" % links):
        load_photographs(str(photographs), 2, 16, 1)


@pytest.mark.parametrize("scale, side", [(2, 16), (3, 18), (4, 20)])
def test_images_too_small_to_validate_on(tmp_path, capsys, scale, side):
    """Of a data set they are an error that names the file and its size; held out, they are left out as in
    training."""
    for name, size in ("fits", (side, side + 5)), ("small", (side + 9, side - 1)):
        Image.new("RGB", size, "red").save(str(tmp_path / (name + ".png")))
    fits, small = [str(tmp_path / (name + ".png")) for name in ("fits", "small")]
    message = "%s has %dx%d pixels: at x%d, an image of at least %d a side is needed" % (
        small, side + 9, side - 1, scale, side)
    with pytest.raises(UserError, match=message):
        open_valid(str(tmp_path), [], scale, "")
    os.mkdir(str(tmp_path / "valid"))
    shutil.copy(fits, str(tmp_path / "valid"))
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
    assert hold_out(str(folder), 0) == (sorted(kept + held), [])
    (folder / "000.png").unlink()
    assert set(hold_out(str(folder), 0.1)[1]) == set(held) - {str(folder / "000.png")}
    assert set(hold_out(str(folder), 0.2)[1]) > set(hold_out(str(folder), 0.1)[1])
    rows = ["%03d.png,someone/photos,%d.jpg" % (i, i // 8) for i in range(1, 400)]
    (folder / "manifest.csv").write_text("\n".join(["file,repo,path"] + rows))
    kept, held = hold_out(str(folder), 0.1)
    photograph = {str(folder / row.split(",")[0]): row.split(",")[2] for row in rows}
    photographs = {photograph[path] for path in held}
    assert len(held) == len(photographs) and not photographs & {photograph[path] for path in kept}
    assert len(kept) == 399 - sum(name in photographs for name in photograph.values())
    for path in held:  # the tile in the middle
        tiles = sorted(one for one in photograph if photograph[one] == photograph[path])
        assert path == tiles[len(tiles) // 2]
    for share in 0, 0.1:
        with pytest.raises(UserError, match="no training data below .*nowhere: expected"):
            hold_out(str(folder / "nowhere"), share)
    with pytest.raises(UserError, match="--valid-share 1e-06 holds out 0 of the 50 photographs below"):
        hold_out(str(folder), 1e-6)
    (folder / "manifest.csv").write_text("nothing")
    assert len(hold_out(str(folder), 0.1)[1]) > 25
    (folder / "manifest.csv").write_text("file,size\n001.png,3")
    with pytest.raises(UserError, match="manifest.csv is not the manifest of a photo set"):
        hold_out(str(folder), 0.1)


# records

def test_authors_records_are_read_once_an_epoch_in_changing_order(tmp_path):
    pairs = authors_record(tmp_path / "train_SR_aug_X3_10.tfrecord", 3, 8, 10)
    sampler = RecordSampler(str(tmp_path), 3, 5, 8, seed=0)

    def epoch(first):
        batches = [sampler(first), sampler(first + 1)]
        order = []
        for lr, hr in batches:
            for low, high in zip(lr, hr):
                order += [i for i, pair in enumerate(pairs)
                          if (pair[0] == low).all() and (pair[1] == high).all()]
        return order

    assert sorted(epoch(0)) == sorted(epoch(2)) == list(range(10))
    assert epoch(0) != epoch(2) and epoch(0) == epoch(0)
    with pytest.raises(UserError, match="is no pair of 8x8 and 16x16 patches"):
        RecordSampler(str(tmp_path), 2, 5, 8, seed=0)
    data = (tmp_path / "train_SR_aug_X3_10.tfrecord").read_bytes()
    (tmp_path / "train_SR_aug_X3_10.tfrecord").write_bytes(data[:-5])
    with pytest.raises(UserError, match="does not consist of records of one size"):
        RecordSampler(str(tmp_path), 3, 5, 8, seed=0)
    (tmp_path / "train_SR_aug_X3_10.tfrecord").write_bytes(data[:3])
    with pytest.raises(UserError, match="does not consist of records of one size"):
        RecordSampler(str(tmp_path), 3, 5, 8, seed=0)


def test_records_are_written_once_and_continued(photographs, tmp_path):
    sampler = Sampler(load_photographs(str(photographs), 2, 12, 1), 2, 4, 12, seed=0)
    folder = tmp_path / "records"
    folder.mkdir()
    write_records(sampler, str(folder), 10, 3)
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(content) == ["train_SR_aug_X2_10-%05d-of-00003.tfrecord" % i for i in range(3)]
    records = RecordSampler(str(folder), 2, 10, 12, seed=0)
    lr, hr = records(0)
    written = [sampler(i, size) for i, size in enumerate((3, 3, 4))]
    for ours, *expected in (lr, *[a for a, _ in written]), (hr, *[b for _, b in written]):
        expected = np.concatenate(expected)
        assert sorted(image.tobytes() for image in ours) == sorted(image.tobytes() for image in expected)
    (folder / "train_SR_aug_X2_10-00001-of-00003.tfrecord").unlink()
    (folder / "train_SR_aug_X2_10-00001-of-00003.tfrecord.0123abcd.tmp").write_bytes(b"half")  # after a kill
    write_records(sampler, str(folder), 10, 3)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content
