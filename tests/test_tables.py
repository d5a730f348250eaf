"""The results table: what is measured and kept, what the files say, and that the READMEs show what the tool
writes."""
import csv
import os
import shutil
import subprocess

from conftest import ROOT, call
from tools import checkpoints
from tools.paper import ablation, dynamics, results, tables

import pytest

SAVED = "model,scale,dataset,image,psnr,ssim,bicubic_psnr,bicubic_ssim\n"  # as test.py --csv begins


def row(dataset="Set5", psnr=38.02, weights="w"):
    return results.Measured("x2", "32s", weights, 368427, 84.9, dataset, 5, psnr, 0.9601, 33.68, 0.9305)


def test_files_are_what_the_tools_write():
    """Of the shipped weights alone, every one of which has its figures on Sample."""
    def path(*names):
        return os.path.join(ROOT, *names)
    measured = results.MEASURED.read(path("figures", "our_table.csv"))
    shipped, lines = checkpoints.shipped_checkpoints(checkpoints.SHIPPED), tables.build_lines(measured)
    for file, block, table in [
            (path("README.md"), "results", tables.to_readme(measured)),
            (path("checkpoints", "README.md"), "results", tables.to_checkpoints(measured, shipped)),
            (path("figures", "results.md"), None, tables.to_markdown(lines)),
            (path("figures", "results.tex"), None, tables.to_latex(lines)),
            (path("figures", "results.csv"), None, tables.to_wide_csv(lines))] + [
                (path("figures", "README.md"), name, tool(rows.read(path("figures", name + ".csv"))))
                for name, tool, rows in (("ablation", ablation.ablation_table, ablation.RESULTS),
                                         ("dynamics", dynamics.dynamics_table, dynamics.DYNAMICS))]:
        with open(file, encoding="utf-8") as opened:
            assert opened.read() == (results.replace_block(file, table, block) if block else table), (
                "run the tool with --redraw --update")
    digests = {key: results.digest(prefix) for key, prefix in shipped.items()}
    assert {(row.scale, row.model): row.weights for row in measured} == digests
    assert {(row.scale, row.model) for row in measured if row.dataset == "Sample"} == set(shipped)


def test_all_methods_are_there_by_their_parameters():
    lines = tables.build_lines([])
    sources = [line.source for line in lines]
    assert [sources.count(source) for source in ("published", "paper", "ours")] == [55, 13, 13]
    assert all(set(line[6:]) == {"not trained"} for line in lines if line.source == "ours")
    for scale in "x2", "x3", "x4":
        shown = [line for line in lines if line.scale == scale and line.source != "ours"]
        params = [float(line.parameters[:-2]) for line in shown]
        assert params == sorted(params)
        assert [line.group for line in shown] == [
            "under 0.5 M parameters" if value < 0.5 else "0.5 to 1 M parameters" if value < 1 else
            "1 M parameters and more" for value in params]


def test_our_lines_follow_the_papers_in_every_format():
    lines = tables.build_lines([row(), row("Sample", 34)])
    start = next(i for i, line in enumerate(lines) if (line.method, line.source) == ("DRSAN-32s", "paper"))
    paper, ours, difference = lines[start:start + 3]
    assert paper.Set5 == "37.99 / 0.9606" and paper.group == "under 0.5 M parameters"
    assert ours[3:] == ("ours", "368,427", "84.90 G", "38.02 / 0.9601") + ("not measured",) * 3
    assert difference[3:] == ("difference", "", "", "+0.03 / -0.0005", "", "", "")
    assert lines[0].method == "bicubic" and lines[0].Set5 == "33.68 / 0.9305"
    markdown, latex = tables.to_markdown(lines), tables.to_latex(lines)
    assert "| DRSAN-32s | ours | 368,427 | 84.90 G | 38.02 / 0.9601 | not measured |" in markdown
    assert {line.count("|") for line in markdown.splitlines() if line.startswith("|")} == {9}
    assert "x2 & DRSAN-32s & ours & 368,427 & 84.90 G & 38.02 / 0.9601 & not measured" in latex
    assert "& $+$0.03 / $-$0.0005 &" in latex
    wide = [line for line in csv.DictReader(tables.to_wide_csv(lines).splitlines())
            if line["source"] == "ours"]
    assert [(line["Set5_psnr"], line["B100_psnr"]) for line in wide[:2]] == [("33.68", ""), ("38.02", "")]
    readme = tables.to_readme([row()])
    assert readme.count("\n") == 2 + 13
    assert "| [DRSAN-32s](checkpoints/x2/32s) | x2 | 368,427 | 84.90 G | 38.02 (37.99) |" in readme


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose only checkpoint is the shipped 32s x2; the tool works on it in the place of this
    one."""
    for name in "paper_table.csv", "paper_table_others.csv":
        (tmp_path / "figures").mkdir(exist_ok=True)
        shutil.copy(os.path.join(results.FIGURES, name), str(tmp_path / "figures"))
    shutil.copytree(os.path.join(ROOT, "checkpoints", "x2", "32s"),
                    str(tmp_path / "checkpoints" / "x2" / "32s"))
    for readme in tmp_path / "README.md", tmp_path / "checkpoints" / "README.md":
        readme.write_text("<!-- results:begin -->\n<!-- results:end -->\n")
    results.MEASURED.write(str(tmp_path / "figures" / "our_table.csv"), [row(weights="other")])
    for module in tables, results:
        monkeypatch.setattr(module, "FIGURES", str(tmp_path / "figures"))
    monkeypatch.setattr(tables, "ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_evaluates_what_is_present_or_takes_saved_figures(project, monkeypatch, capsys):
    def evaluate(command):
        assert command[command.index("--dataset") + 1:] == ["Sample"]
        assert command[command.index("--model") + 1] == "32s" and command[1].endswith("test.py")
        with open(command[command.index("--csv") + 1], "w") as file:
            file.write(SAVED + "32s,x2,Sample,a,30,0.9,29,0.8\n32s,x2,Sample,b,32,0.9,29,0.8\n"
                               "32s,x2,Sample,mean,31,0.9,29,0.8\n")
        return 0
    monkeypatch.setattr(subprocess, "call", evaluate)

    def run(*arguments):
        return call(monkeypatch, capsys, tables.main, "--checkpoints", project / "checkpoints", *arguments)

    status, out, err = run("--dataset", "Sample", "Set14", "--data-dir", "data")
    assert (status, err) == (0, "") and "Set14 is left out: no images of Set14" in out
    written = project / "runs" / "tables"
    assert sorted(os.listdir(str(written))) == ["our_table.csv", "results.csv", "results.md", "results.tex"]
    measured, = results.MEASURED.read(str(written / "our_table.csv"))  # that of other weights is dropped
    assert measured[5:] == ("Sample", 2, 31, 0.9, 29, 0.8) and measured[3:5] == (368427, 84.9)
    assert "(37.99)" not in (project / "README.md").read_text()

    saved = project / "saved.csv"
    saved.write_text(SAVED + "32s,x2,mine,mean,1,0.9,29,0.8\n32s,x2,Set14,mean,30.1234,0.9,29,0.8\n")
    assert run("--csv", saved)[0] == 0
    kept = results.MEASURED.read(str(written / "our_table.csv"))
    assert [(row.dataset, row.psnr) for row in kept] == [("Sample", 31), ("Set14", 30.1234)]
    assert run("--csv", saved, "--update")[0] == 0
    readme, overview = project / "README.md", project / "checkpoints" / "README.md"
    text = readme.read_text()
    assert "30.12 (33.57)" in text and "| x2/32s | - | - | 30.12 / 0.9000 |" in overview.read_text()
    assert run("--redraw", "--update")[0] == 0 and readme.read_text() == text
    for bad in "a\n", text + text, "<!-- results:end -->\n<!-- results:begin -->\n":
        readme.write_text(bad)
        status, _, err = run("--redraw", "--update")
        assert status == 1 and "README.md: there must be one line" in err and readme.read_text() == bad

    monkeypatch.setattr(subprocess, "call", lambda command: 1)
    for arguments, text, message in [
            (["--csv", saved], "a,b\n1,2\n", "saved.csv is not a file of test.py --csv"),
            (["--csv", saved], "scale,model,dataset,image\nx4,48m,Set5,mean\n", "no checkpoint is shipped"),
            (["--csv", "nothing.csv"], "", "error: cannot read"),
            (["--checkpoints", "no"], "", "error: no checkpoint in"),
            (["--dataset", "Sample"], "", "error: test.py failed for DRSAN-32s x2"),
            (["--dataset", "B100", "--data-dir", "no"], "", "error: no data set of B100 is present in no")]:
        saved.write_text(text)
        status, _, err = run(*arguments)
        assert status == 1 and message in err
    (written / "our_table.csv").write_text("scale,model\nx2,32s\n")
    assert "our_table.csv is not a table of this tool" in run()[2]
