"""The command line as a newcomer meets it: help, errors, exit codes, YAML, and one vocabulary everywhere."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stages.cohorts import write_cohort
from wsi_pipeline.cli import main
from wsi_pipeline.commands.catalogue import COMMANDS, Command
from wsi_pipeline.commands.shell.parser import build_parser
from wsi_pipeline.config.registries import TISSUE_METHODS
from wsi_pipeline.mil.models.zoo import MIL_MODELS


def test_help_lists_every_command_with_its_purpose() -> None:
    out = subprocess.run(
        [sys.executable, "-m", "wsi_pipeline", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for command in COMMANDS:
        assert re.search(rf"^    {command.name}\s", out, re.M)


_IMPORTED = """
import sys
before = set(sys.modules)
from wsi_pipeline.cli import main
main({words!r})
names = {{name.partition(".")[0] for name in set(sys.modules) - before}} - set(sys.stdlib_module_names)
print("IMPORTED", *sorted(names), sum(name.startswith("wsi_pipeline") for name in sys.modules))
"""


@pytest.mark.parametrize("words", [["--help"], *([command.name, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_is_quick_since_it_imports_next_to_nothing(words: list[str]) -> None:
    code = _IMPORTED.format(words=words)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    *packages, ours = out.rpartition("IMPORTED ")[2].split()
    assert packages == ["psutil", "wsi_pipeline"]
    assert int(ours) < 36


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help_an_example_that_parses_and_option_names_of_its_spec(
    command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = [field for kind in command.options for field in dataclasses.fields(kind)]  # type: ignore[attr-defined]
    rare = any(field.metadata["rare"] for field in fields)
    assert main([command.name, "--help-all" if rare else "--help"]) == 0  # type: ignore[attr-defined]
    out = capsys.readouterr().out
    assert f"example: {command.example}" in out  # type: ignore[attr-defined]
    for field in fields:
        assert f"--{field.name.replace('_', '-')}" in out
    assert build_parser().parse_args(command.example.split()[1:]).command is command  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_fits_a_screen_and_says_how_many_options_it_leaves_out(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    main([command.name, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 120
    rare = [f for kind in command.options for f in dataclasses.fields(kind) if f.metadata["rare"]]
    more = [line for line in lines if line.endswith(f": wsi-pipeline {command.name} --help-all")]
    assert [int(line.split(" more option")[0]) for line in more] == ([len(rare) + is_logged(command)] if rare else [])
    assert ("  --log-json " in "\n".join(lines)) == (is_logged(command) and not rare)
    for field in rare:
        assert not any(line.startswith(f"  --{field.name.replace('_', '-')} ") for line in lines)
        assert build_parser().parse_args([*needed(command), *given(field)]).command is command


def is_logged(command: Command) -> bool:
    return command.stage or command.name == "run"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_options_that_mean_nothing_to_a_command_are_not_in_its_help(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    main([command.name, "--help"])
    out = capsys.readouterr().out
    by_slide = {
        "segment",
        "tile",
        "embed",
        "classify",
        "embed-slides",
        "stain",
        "train-mil",
        "predict",
        "heatmap",
        "export",
        "import",
        "check",
        "status",
        "view",
    }
    assert ("--only ID" in out) == ("--chunk I/N" in out) == (command.name in by_slide)
    assert ("--run FOLDER" in out) == (command.name not in ("run", "demo", "encoders"))


def needed(command: Command) -> list[str]:
    return [command.name, *(["x"] if command.needed else [])]


def given(field: dataclasses.Field[object]) -> list[str]:
    flag = f"--{field.name.replace('_', '-')}"
    return [flag] if isinstance(field.default, bool) else [flag, str(field.default or 0)]


def test_choices_of_the_command_line_are_those_of_the_registries(capsys: pytest.CaptureFixture[str]) -> None:
    for words, registry in ((["tile"], TISSUE_METHODS), (["train-mil"], MIL_MODELS)):
        main([*words, "--help"])
        out = capsys.readouterr().out
        assert f"{{{','.join(registry.names())}}}" in out
        for name in registry.names():
            assert registry.get(name) is not None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tile", "--patchpx", "3"], "error: unknown option --patchpx. Did you mean --patch-px?\n"),
        (["embed", "--folds", "3"], "error: unknown option --folds\n       See: wsi-pipeline embed --help-all\n"),
        (["report", "here"], "error: unknown argument here\n       See: wsi-pipeline report --help\n"),
        (["tile", "nowhere.csv"], "cannot read nowhere.csv: No such file"),
        (["tile", "no-such-folder"], "no slides at no-such-folder"),
        (["tile", "x.csv", "--patch-px", "0"], "--patch-px must be between 16 and 8192, got 0"),
        (
            ["tile", "x.csv", "--patch-px", "64", "--overlap-px", "64"],
            "--overlap-px must be smaller than --patch-px (64)",
        ),
        (["tile", "x.csv", "--patch-px", "many"], "invalid int value"),
        (["embed"], "no run in wsi-run"),
        (["train-mil"], "no run in wsi-run"),
        (["run", "none.yaml"], "cannot read none.yaml"),
        (["run", "none.yaml", "--run", "elsewhere"], "unknown option --run"),
        (["demo", "folder", "--only", "s0"], "unknown option --only"),
        (["tile", "~nobody-of-this-name/slides"], "no slides at ~nobody-of-this-name"),
        (["tile", "~nobody-of-this-name/slides.csv"], "cannot read ~nobody-of-this-name"),
        (["fly"], "unknown command 'fly' (choose from"),
        (["tile", "--chunk", "5/4"], "chunk must be between 1/4 and 4/4"),
    ],
)
def test_wrong_usage_is_told_in_a_line_without_traceback(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert told in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["embed", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cli"), broken=True)


def test_run_takes_all_stages_from_one_yaml(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yaml = cohort.parent / "cohort.yaml"
    yaml.write_text(
        "slides: slides.csv\nrun: yaml-run\n"
        "tile: {patch_px: 128, workers: 0}\n"
        "embed:\n  - {model: colour}\n"
        "train-mil: {folds: 2, epochs: 3}\n"
    )
    assert main(["run", str(yaml)]) == 3
    assert (cohort.parent / "yaml-run" / "report" / "report.html").is_file()
    assert main(["status", "--run", str(cohort.parent / "yaml-run")]) == 3
    out = capsys.readouterr().out
    assert re.search(r"torn\s+segment\s+truncated TIFF", out)
    assert re.search(r"^tile\s+4\s+1\s+0\s+1$", out, re.M)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("slides: slides.csv\ntiles: {}\n", "unknown key tiles"),
        ("slides: slides.csv\ntile: {patchpx: 3}\n", "tile: unknown key patchpx"),
        ("slides: slides.csv\nnonsense_key: 1\n", "unknown key nonsense_key"),
        ("slides: slides.csv\ntrain_mil: {nonsense-key: 1}\n", "unknown key nonsense-key"),
        ("slides: slides.csv\ntile: {patch-px: 3}\n", "tile: patch-px must be between 16"),
        ("slides: slides.csv\ntile: {patch-px: 64, patch_px: 64}\n", "patch-px and patch_px are the same key"),
        ("slides: slides.csv\ntrain-mil: {}\ntrain_mil: {}\n", "train-mil and train_mil are the same key"),
        ("slides: slides.csv\ntile: {}\ntile: {patch_px: 64}\n", "tile is given twice"),
        ("slides: slides.csv\ntile: {patch_px: '256'}\n", "patch_px must be of type int"),
        ("slides: slides.csv\ntrain-mil: {folds: 1}\n", "folds must be between"),
        (
            "slides: slides.csv\nembed: {devices: 2}\n",
            "devices must be of type str, got 2\n       Write it in",
        ),
        (
            "slides: slides.csv\ntrain-mil: {learning_rate: 1e3}\n",
            "learning_rate must be between 1e-08 and 1, got",
        ),
        ("slides: slides.csv\ntrain-mil: {learning_rate: 1e999}\n", "learning_rate must be a finite number"),
        ("slides: slides.csv\nembed: {model: colour}\ntrain-mil: {model: abmill}\n", "unknown MIL model 'abmill'"),
        ("slides: slides.csv\ntrain-mil: {choose: 'abmil,men'}\n", "unknown MIL model 'men'"),
        ("slides: slides.csv\nembed: {model: colourr}\n", "Did you mean colour?"),
        ("slides: slides.csv\nembed: [{model: colour}, {model: colour}]\n", "the encoder colour is given twice"),
        ("slides: slides.csv\nembed: 3\n", "must hold option names"),
        ("tile: {}\n", "`slides` is missing"),
        ("- a\n", "must hold keys"),
        ("a: [\n", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_faults_of_a_yaml_are_found_before_any_work(
    cohort: Path, text: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml = cohort.parent / "bad.yaml"
    yaml.write_text(text)
    assert main(["run", str(yaml)]) == 2
    assert told in capsys.readouterr().err
    assert not (cohort.parent / "wsi-run").exists()


def test_home_is_known_in_a_yaml(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(cohort.parent))
    yaml = tmp_path / "cohort.yaml"
    yaml.write_text("slides: ~/slides.csv\nrun: ~/home-run\ntile: {workers: 0}\n")
    assert main(["run", str(yaml), "--only", "s0"]) == 0
    assert (cohort.parent / "home-run" / "tile" / "s0.h5").is_file()


def test_a_detector_that_is_none_is_refused_once(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tile", str(cohort), "--run", str(tmp_path / "r"), "--method", "otzu"]) == 2
    assert "error: --method: invalid choice: 'otzu' (choose from" in capsys.readouterr().err
    yaml = tmp_path / "cohort.yaml"
    yaml.write_text(f"slides: {cohort}\nrun: r\ntile: {{method: otzu}}\n")
    assert main(["run", str(yaml)]) == 2
    err = capsys.readouterr().err
    assert "tile: unknown tissue detector 'otzu'\n       Known: hybrid, density, otsu, none, grandqc, hest\n" in err
    assert not (tmp_path / "r" / "status").exists()


def test_check_names_what_will_not_work_and_writes_nothing(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(cohort.parent.rglob("*"))
    assert main(["check", str(cohort), "--run", str(cohort.parent / "none")]) == 3
    out = capsys.readouterr().out
    assert re.search(r"^s0 .*1024 x 1024\s+2\s+0\.5000 slide", out, re.M)
    assert re.search(r"^torn .*FAILED truncated", out, re.M)
    assert "5 slides can be tiled, 1 cannot" in out
    assert sorted(cohort.parent.rglob("*")) == before


def test_chunks_together_are_the_cohort(cohort: Path, tmp_path: Path) -> None:
    for part in ("1/3", "2/3", "3/3"):
        main(["tile", str(cohort), "--run", str(tmp_path / "r"), "--chunk", part, "--workers", "0", "--quiet"])
    assert {path.stem for path in (tmp_path / "r" / "tile").glob("*.h5")} == {"s0", "s1", "s2", "s3", "blank"}


def test_a_chunk_beyond_the_cohort_is_no_error(cohort: Path, tmp_path: Path) -> None:
    run = ["--run", str(tmp_path / "r"), "--quiet"]
    assert main(["tile", str(cohort), *run, "--workers", "0", "--only", "s0"]) == 0
    for words in (["tile", "--workers", "0"], ["embed", "--model", "colour"], ["classify"], ["status"], ["check"]):
        assert main([*words, *run, "--chunk", "7/7"]) == 0, words


def test_words_that_the_terminal_cannot_show_stop_nothing(cohort: Path, tmp_path: Path) -> None:
    words = ["tile", str(cohort), "--only", "s0", "--workers", "0", "--run", str(tmp_path / "prä")]
    out = subprocess.run(
        [sys.executable, "-m", "wsi_pipeline", *words],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=True,
    ).stdout.decode("ascii")
    assert r"pr\xe4/segment/ \xb7 next: wsi-pipeline embed" in out


def test_the_next_step_that_is_named_can_be_typed_as_it_is(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["tile", str(cohort), "--only", "s0", "--workers", "0"]
    for run, named in (("wsi-run", ""), ("a run", " --run 'a run'")):
        assert main([*words, "--run", run]) == 0
        assert capsys.readouterr().out.endswith(f" next: wsi-pipeline embed --model pathotune{named}\n")
        assert main(["embed", "--model", "colour", "--run", run]) == 0
        assert f" next: wsi-pipeline train-mil{named}\n" in capsys.readouterr().out


def test_quiet_says_nothing_when_all_is_well(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["tile", str(cohort), "--run", str(tmp_path / "r"), "--only", "s0", "--workers", "0", "--quiet"]
    assert main(args) == 0
    assert capsys.readouterr().out == ""


def test_embed_of_slides_that_all_failed_names_them(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--run", str(tmp_path / "r"), "--only", "torn"]
    assert main(["tile", str(cohort), "--workers", "0", *run]) == 3
    assert main(["embed", "--model", "colour", *run]) == 3
    assert re.search(r"^torn\s+FAILED truncated TIFF", capsys.readouterr().out, re.M)


def test_only_takes_an_id_that_holds_a_comma(cohort: Path, tmp_path: Path) -> None:
    csv = tmp_path / "slides.csv"
    csv.write_text(f'slide_id,path\n"a,b",{cohort.parent / "s0.svs"}\na,{cohort.parent / "s1.svs"}\n')
    for only, made in (("a,b", {"a,b"}), ("a", {"a,b", "a"})):
        assert main(["tile", str(csv), "--run", str(tmp_path / "r"), "--workers", "0", "--only", only]) == 0
        assert {path.stem for path in (tmp_path / "r" / "tile").glob("*.h5")} == made


def test_slides_gone_from_the_csv_are_said_and_left(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv, run = tmp_path / "slides.csv", ["--run", str(tmp_path / "r"), "--workers", "0"]
    csv.write_text(f"slide_id,path\none,{cohort.parent / 's0.svs'}\ntwo,{cohort.parent / 's1.svs'}\n")
    main(["tile", str(csv), *run])
    csv.write_text(f"slide_id,path\none,{cohort.parent / 's0.svs'}\n")
    main(["tile", str(csv), *run])
    assert "1 slide of this run is no longer in the cohort: two" in capsys.readouterr().out
    assert (tmp_path / "r" / "tile" / "two.h5").exists()


def test_a_damaged_list_of_slides_is_written_anew(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "r"
    run.mkdir()
    (run / "cohort.csv").write_text("slide_id,pa")
    args = ["--run", str(run), "--only", "s0", "--workers", "0"]
    assert main(["tile", *args]) == 2
    assert "it lists no slides" in capsys.readouterr().err
    assert main(["tile", str(cohort), *args]) == 0
    assert main(["tile", *args]) == 0


def test_slides_not_tiled_yet_are_not_called_failed(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--run", str(tmp_path / "r")]
    assert main(["tile", str(cohort), "--workers", "0", "--only", "s0", *run]) == 0
    assert main(["embed", "--model", "colour", *run]) == 0
    out = capsys.readouterr().out
    assert "not tiled yet, so not embedded: 5 slides" in out
    assert "failed" not in out.lower()
    assert main(["embed", "--model", "colour", "--only", "s1", *run]) == 2
    assert "no slide of this run has been tiled" in capsys.readouterr().err


def test_a_run_folder_that_cannot_be_made_is_told_in_a_line(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tile", str(cohort), "--run", str(cohort / "under-a-file")]) == 2
    err = capsys.readouterr().err
    assert "Not a directory" in err
    assert "--run FOLDER" in err
    assert "Traceback" not in err


def test_a_closed_pipe_stops_the_talk_not_the_work(cohort: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "wsi_pipeline",
        "tile",
        str(cohort),
        "--run",
        str(tmp_path / "r"),
        "--workers",
        "0",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait() == 3
    assert process.stderr.read() == ""
    assert len(list((tmp_path / "r" / "tile").glob("*.h5"))) == 5
