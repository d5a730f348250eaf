"""The results table: what is measured and kept, what the files say, and that the README shows what the tool writes."""
import csv
import os
import shutil

import utils
from conftest import ROOT, call
from model import drsan
from ops import tf
from tools import checkpoints
from tools.command import UserError
from tools.paper import results, tables

import numpy as np
import pytest
from PIL import Image


def row(scale="x2", model="32s", dataset="Set5", psnr=38.02, ssim=0.9601, weights="w"):
    return results.Measured(scale, model, weights, 368427, 84.9, dataset, 5, psnr, ssim, 33.68, 0.9305)


def lines_of(lines, source, method="DRSAN-32s", scale="x2"):
    return [line for line in lines if (line.source, line.method, line.scale) == (source, method, scale)]


@pytest.fixture
def shipped(tmp_path):
    """A folder of checkpoints with an untrained 32s x2, and a data folder with two small images as Set5."""
    drsan(tf.placeholder(tf.float32, [None, None, None, 3]), "32s", "x2")
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        checkpoints.save_weights(session, str(tmp_path / "checkpoints" / "x2" / "32s"), "32s", "x2")
    images = tmp_path / "data" / "HR" / "Set5"
    images.mkdir(parents=True)
    random = np.random.RandomState(2)
    for name in "a", "b":
        noise = random.randint(0, 256, (10, 12, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((48, 40), Image.BICUBIC).save(str(images / (name + ".png")))
    return tmp_path


@pytest.fixture
def run(monkeypatch, capfd):
    """Run tables.py with these arguments: (exit status, stdout, stderr), those of test.py within included."""
    return lambda *arguments: call(
        monkeypatch, capfd, lambda: tables.make_tables(tables.parse_args()), "--gpu", -1, *arguments)


# ------------------------------------------------------------------------------------------- what this project shows

def test_readme_shows_what_the_tool_writes():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        readme = file.read()
    measured = results.read_measured(os.path.join(results.FIGURES, "our_table.csv"))
    assert readme == results.replace_block(readme, tables.to_readme(measured)), "run: python tools/paper/tables.py --redraw --update"


def test_overview_of_checkpoints_is_what_the_tool_writes():
    folder = os.path.join(results.ROOT, "checkpoints")
    with open(os.path.join(folder, "README.md"), encoding="utf-8") as file:
        overview = file.read()
    measured = results.read_measured(os.path.join(results.FIGURES, "our_table.csv"))
    table = tables.to_checkpoints(measured, checkpoints.shipped_checkpoints(folder))
    assert overview == results.replace_block(overview, table), "run: python tools/paper/tables.py --redraw --update"


@pytest.mark.parametrize("name, write", [
    ("results.md", tables.to_markdown), ("results.tex", tables.to_latex), ("results.csv", tables.to_wide_csv)])
def test_files_are_what_the_tool_writes(name, write):
    with open(os.path.join(results.FIGURES, name)) as file:
        measured = results.read_measured(os.path.join(results.FIGURES, "our_table.csv"))
        assert file.read() == write(tables.build_lines(measured))


def test_figures_are_of_the_shipped_weights():
    """Every shipped checkpoint has its figures on Sample, and no other weights have any."""
    shipped = checkpoints.shipped_checkpoints(os.path.join(ROOT, "checkpoints"))
    measured = results.read_measured(os.path.join(results.FIGURES, "our_table.csv"))
    assert {(one.scale, one.model): one.weights for one in measured} == {
        key: results.digest(prefix) for key, prefix in shipped.items()}
    assert {(one.scale, one.model) for one in measured if one.dataset == "Sample"} == set(shipped)
    images = {"Sample": 5, "Set5": 5, "Set14": 14, "B100": 100, "Urban100": 100}
    assert all(one.images == images[one.dataset] for one in measured)


# ------------------------------------------------------------------------------------------------------------- lines

def test_all_published_rows_are_there():
    lines = tables.build_lines([])
    assert len([line for line in lines if line.source == "published"]) == 55
    assert len([line for line in lines if line.source == "paper"]) == 13
    ours = [line for line in lines if line.source == "ours"]
    assert len(ours) == 13 and all(set(line.cells.values()) == {"not trained"} for line in ours)
    assert not any(line.source == "difference" or line.method == "bicubic" for line in lines)
    for scale in "x2", "x3", "x4":  # sorted by parameters
        params = [float(line.params[:-2]) for line in lines if line.scale == scale and line.source != "ours"]
        assert params == sorted(params)


def test_difference_to_the_paper():
    lines = tables.build_lines([row(), row(dataset="Sample", psnr=34)])
    ours, = lines_of(lines, "ours")
    assert ours.cells == {"Sample": "34.00 / 0.9601", "Set5": "38.02 / 0.9601", "Set14": "not measured",
                          "B100": "not measured", "Urban100": "not measured"}
    assert (ours.params, ours.multi_adds) == ("368,427", "84.90 G")
    paper, = lines_of(lines, "paper")
    assert paper.cells["Set5"] == "37.99 / 0.9606" and paper.group == "under 0.5 M parameters"
    difference, = lines_of(lines, "difference")
    assert difference.cells == {"Sample": "", "Set5": "+0.03 / -0.0005", "Set14": "", "B100": "", "Urban100": ""}
    start = lines.index(paper)
    assert lines[start:start + 3] == [paper, ours, difference]
    bicubic, = lines_of(lines, "ours", "bicubic")
    assert bicubic.cells["Set5"] == "33.68 / 0.9305" and lines[0] == bicubic


def test_model_that_the_paper_lacks():
    lines = tables.build_lines([row(scale="x3", model="32l")])
    ours, = lines_of(lines, "ours", "DRSAN-32l", "x3")
    assert ours.cells["Set5"] == "38.02 / 0.9601" and not lines_of(lines, "difference", "DRSAN-32l", "x3")


@pytest.mark.parametrize("params, group", [(0.01, 0), (0.49, 0), (0.5, 1), (0.99, 1), (1, 2), (1.77, 2)])
def test_groups(params, group):
    assert tables.group_of(params) == tables.GROUPS[group][1]


# ------------------------------------------------------------------------------------------------------------- files

def test_markdown_latex_and_csv_say_the_same():
    lines = tables.build_lines([row()])
    markdown, latex = tables.to_markdown(lines), tables.to_latex(lines)
    assert "| DRSAN-32s | ours | 368,427 | 84.90 G | 38.02 / 0.9601 | not measured |" in markdown
    assert "| DRSAN-32s | difference |  |  | +0.03 / -0.0005 |" in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {9}
    assert "x2 & DRSAN-32s & ours & 368,427 & 84.90 G & 38.02 / 0.9601 & not measured" in latex
    assert "& $+$0.03 / $-$0.0005 &" in latex
    rows = [line for line in latex.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
    assert {line.count("&") for line in rows} == {8}
    rows = list(csv.DictReader(tables.to_wide_csv(lines).splitlines()))
    assert len(rows) == len(lines)
    ours, = [one for one in rows if (one["scale"], one["method"], one["source"]) == ("x2", "DRSAN-32s", "ours")]
    assert (ours["Set5_psnr"], ours["Set5_ssim"], ours["B100_psnr"]) == ("38.02", "0.9601", "")


def test_readme_block():
    table = tables.to_readme([row()])
    assert len(table.splitlines()) == 2 + 13
    assert "| [DRSAN-32s](checkpoints/x2/32s) | x2 | 368,427 | 84.90 G | 38.02 (37.99) | - (33.57) | - (32.16) | - (32.10) |" in table
    assert "| DRSAN-48m | x4 | 1,270,963 | 88.33 G | - (32.34) | - (28.65)" in table
    begin, end = results.BEGIN % "results", results.END % "results"
    text = "a\n%s\nold\n%s\nb\n" % (begin, end)
    assert results.replace_block(text, "new\n") == text.replace("old", "new")
    for wrong in "a\n", text.replace(end, ""), text + text, "%s\n%s\n" % (end, begin):
        with pytest.raises(UserError, match="one line <!-- results:begin -->"):
            results.replace_block(wrong, "new\n")


def test_measured_figures_survive_writing(tmp_path):
    path = str(tmp_path / "our_table.csv")
    assert results.read_measured(path) == []
    results.write_measured(path, [row(), row(dataset="B100")])
    assert results.read_measured(path) == [row(), row(dataset="B100")]
    (tmp_path / "bad.csv").write_text("scale,model\nx2,32s\n")
    with pytest.raises(UserError, match="bad.csv is not a table of this tool"):
        results.read_measured(str(tmp_path / "bad.csv"))


def test_merge_replaces_and_drops_what_other_weights_gave(shipped):
    found = checkpoints.shipped_checkpoints(str(shipped / "checkpoints"))
    assert list(found) == [("x2", "32s")]
    weights = results.digest(found["x2", "32s"])
    old = [row(dataset="B100", weights=weights), row(weights=weights, psnr=1), row(dataset="Set14", weights="other"),
           row(model="48s", weights=weights)]
    new = [row(weights=weights, psnr=2), row(dataset="Sample", weights=weights)]
    merged = tables.merge(old, new, found)
    assert [(one.dataset, one.psnr) for one in merged] == [("Sample", 38.02), ("Set5", 2), ("B100", 38.02)]


# ----------------------------------------------------------------------------------------------------------- command

def test_evaluates_what_is_present_or_takes_saved_figures(shipped, run):
    out = shipped / "out"
    status, text, err = run("--dataset", "Set5", "Set14", "--data-dir", shipped / "data",
                            "--checkpoints", shipped / "checkpoints", "--output", out)
    assert (status, err) == (0, "")
    assert "Set14 is left out: no images of Set14" in text and "README" not in text
    measured, = results.read_measured(str(out / "our_table.csv"))
    assert (measured.dataset, measured.images, measured.parameters, measured.multi_adds_G) == ("Set5", 2, 368427, 84.9)
    scores = []
    for name in "a", "b":
        hr = utils.read_image(str(shipped / "data" / "HR" / "Set5" / (name + ".png")))
        scores.append(utils.score(utils.bicubic(utils.downscale(hr, 2), 2), hr, 2))
    np.testing.assert_allclose((measured.bicubic_psnr, measured.bicubic_ssim), np.mean(scores, axis=0), atol=1e-4)
    assert sorted(os.listdir(str(out))) == ["our_table.csv", "results.csv", "results.md", "results.tex"]

    saved = shipped / "saved.csv"  # as test.py --csv writes it
    saved.write_text("model,scale,dataset,image,psnr,ssim,bicubic_psnr,bicubic_ssim\n"
                     "32s,x2,Set14,a,30,0.9,29,0.8\n32s,x2,Set14,mean,30.1234,0.9,29,0.8\n")
    readme = shipped / "README.md"
    readme.write_text("%s\n%s\n" % (results.BEGIN % "results", results.END % "results"))
    arguments = "--checkpoints", shipped / "checkpoints", "--output", out, "--readme", readme
    assert run("--csv", saved, *arguments)[0] == 0
    both = results.read_measured(str(out / "our_table.csv"))
    assert [(one.dataset, one.images, one.psnr) for one in both] == [("Set5", 2, measured.psnr), ("Set14", 1, 30.1234)]
    assert "30.12 (33.57)" in readme.read_text()
    before = readme.read_text()
    shutil.rmtree(str(shipped / "checkpoints"))
    assert run("--redraw", *arguments)[0] == 0 and readme.read_text() == before


def test_overview_is_written_with_the_projects_tables_alone(shipped, run, monkeypatch):
    """A table of some of the figures, written elsewhere, leaves the project's files as they are."""
    overview, readme, figures = shipped / "checkpoints" / "README.md", shipped / "README.md", shipped / "figures"
    empty = "%s\n%s\n" % (results.BEGIN % "results", results.END % "results")
    for path in overview, readme:
        path.write_text(empty)
    saved = shipped / "saved.csv"
    saved.write_text("model,scale,dataset,image,psnr,ssim,bicubic_psnr,bicubic_ssim\n32s,x2,Set5,mean,30,0.9,29,0.8\n")
    figures.mkdir()
    for name in "paper_table.csv", "paper_table_others.csv":
        shutil.copy(os.path.join(results.FIGURES, name), str(figures))
    monkeypatch.setattr(tables, "costs", lambda *variant: (368427, 84.9))
    monkeypatch.setattr(tables, "ROOT", str(shipped))
    monkeypatch.setattr(tables, "FIGURES", str(figures))

    def changed(*arguments):
        assert run("--csv", saved, *arguments)[0] == 0
        changed = [path for path in (overview, readme) if path.read_text() != empty]
        for path in changed:
            path.write_text(empty)
        return changed

    assert changed("--output", shipped / "out") == []
    assert changed("--output", shipped / "out", "--checkpoints", shipped / "checkpoints") == [overview]
    assert changed("--update") == [overview, readme]


def test_bad_input(shipped, run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert run("--redraw", "--csv", "a")[0] == 2
    assert run("--redraw", "--output", out)[0] == 0  # the project's figures, where there are none
    with open(os.path.join(results.FIGURES, "results.md")) as file:
        assert file.read() == (out / "results.md").read_text()
    monkeypatch.setattr(tables, "FIGURES", str(tmp_path))
    status, _, err = run("--redraw", "--output", out)
    assert status == 1 and "error: nothing to draw: there is no" in err
    status, _, err = run("--checkpoints", tmp_path / "none", "--output", out)
    assert status == 1 and "error: no checkpoint in" in err
    saved = tmp_path / "saved.csv"
    for text, message in [("a,b\n1,2\n", "saved.csv is not a file of test.py --csv"),
                          ("scale,model,dataset,image\nx4,48m,Set5,mean\n", "no checkpoint is shipped")]:
        saved.write_text(text)
        status, _, err = run("--csv", saved, "--checkpoints", shipped / "checkpoints", "--output", out)
        assert status == 1 and message in err
    status, _, err = run("--csv", tmp_path / "nothing.csv", "--checkpoints", shipped / "checkpoints", "--output", out)
    assert status == 1 and "error: cannot read" in err
    (shipped / "data" / "HR" / "Set5" / "c.png").write_bytes(b"no image")
    status, text, err = run("--dataset", "Set5", "--data-dir", shipped / "data",
                            "--checkpoints", shipped / "checkpoints", "--output", out)
    assert status == 1 and "error: test.py failed for DRSAN-32s x2" in err and "c                    failed" in text
    status, _, err = run("--dataset", "B100", "--data-dir", tmp_path, "--checkpoints", shipped / "checkpoints",
                         "--output", out)
    assert status == 1 and "error: no data set is present in" in err
